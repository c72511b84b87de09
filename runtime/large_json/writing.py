"""Large arrays as JSON, with the very bytes that a writer of the whole list makes. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
import numpy as np

from runtime.tensors import Array

# From here on an array counts as large; and so many numbers are written at once, in about a millisecond.
LARGE_SIZE: Final = 8192


def is_large(value: object) -> bool:
    """Whether writing it would take milliseconds, and this module writes it."""
    return isinstance(value, np.ndarray) and value.size > LARGE_SIZE and value.dtype.kind in "fiub"


def any_large(outputs: Mapping[str, object]) -> bool:
    return any(map(is_large, outputs.values()))


def list_text(array: Array, *, size: int = LARGE_SIZE) -> bytes:
    """``msgspec.json.encode(array.tolist())``: compact, null for NaN and infinities."""
    return b"".join(_parts(array, msgspec.json.encode, b",", size))


def stdlib_list_text(array: Array, *, size: int = LARGE_SIZE) -> bytes:
    """``json.dumps(array.tolist())``: a space behind commas, NaN and Infinity by name."""
    return b"".join(_parts(array, _dumped, b", ", size))


def flat_values(array: Array) -> object:
    """Its values in a row, for msgspec to write: a list, or the text of a large one."""
    flat = array.ravel()
    return msgspec.Raw(list_text(flat)) if is_large(flat) else flat.tolist()


def all_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _dumped(values: object) -> bytes:
    return json.dumps(values).encode()


def _parts(array: Array, encode: Callable[[object], bytes], comma: bytes, size: int) -> Iterator[bytes]:
    if array.size <= size or not array.ndim:
        yield encode(array.tolist())
        return
    rows = size * len(array) // array.size
    yield b"["
    for at in range(0, len(array), rows or 1):
        if at:
            yield comma
        if rows:
            yield encode(array[at : at + rows].tolist())[1:-1]
        else:
            yield from _parts(array[at], encode, comma, size)
    yield b"]"
