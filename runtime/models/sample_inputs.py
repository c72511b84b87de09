"""Made-up inputs for a model that came without recorded ones: the same on every machine, by the shapes that it declares.

Whether a model takes them shows only when it is run, so there are several offers, the likeliest first: free lengths grow, a free
length behind a fixed one (a recurrent state of shape [2, batch, 128]) is first a number of rows and then a length like any other,
whole numbers are first up to 99 and then only 0 and 1, because they are often indices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from hedgerow.contracts.model import TensorSpec
from runtime.tensors import DTYPES, Array

AxisNames = Mapping[str, Sequence[str]]
# Lengths tried for free axes behind the first: some models need a minimum (audio, time series), few a maximum.
_FREE_LENGTHS = (16, 1, 256, 576, 4096, 16_000)
_MOST_TOKENS = 600
_WIDE, _NARROW = 100, 2
# Rows of different sizes, one far from the others: a model that scales a whole batch by its largest value (dynamic quantisation)
# or treats extremes apart shows it only then.
_ROW_SCALES = (1.0, 1.0, 0.1, 3.0, 10_000.0, 10.0, 0.3, 1.0)
_DECIMALS = 3
# Texts of different lengths and numbers of words: a model that pads a batch to its longest text shows it only then.
_TEXTS = ("a", "b c", "d", "e f g h", "longer", "i, j", "k l m", "n")
# What a row that is unlike all others may hold, by kind of number; not every model takes each.
_FLOAT_EXTREMES: Mapping[str, Callable[[Any], float]] = {
    "largest": lambda limits: float(limits.max),
    "not a number": lambda limits: math.nan,
    "infinite": lambda limits: math.inf,
    "zero": lambda limits: 0.0,
    "lowest": lambda limits: float(limits.min),
    "minus infinite": lambda limits: -math.inf,
    "tiny": lambda limits: float(limits.tiny),
    "large": lambda limits: float(limits.max) ** 0.5,
    "minus large": lambda limits: -(float(limits.max) ** 0.5),
}
_TEXT_EXTREMES = {"zero": "", "largest": "long " * 200, "tiny": " ", "infinite": "\N{GRINNING FACE}", "lowest": "A"}
_WHOLE_EXTREMES = ("30000", "1000", "largest", "zero", "lowest")
_EXTREMES = tuple(dict.fromkeys((*_FLOAT_EXTREMES, *_WHOLE_EXTREMES)))
# Inputs whose name says which values make sense at all.
_BY_NAME = {"sr": 16_000, "sample_rate": 16_000, "sampling_rate": 16_000}
_ONES, _ZEROS = ("mask",), ("token_type", "segment")


@dataclass(frozen=True)
class _Offer:
    """``rows_inside``: free lengths behind a fixed leading one are numbers of rows."""

    length: int
    rows_inside: bool
    most: int


def made_up_feeds(specs: Sequence[TensorSpec], rows: int, axis_names: AxisNames | None = None) -> Iterator[dict[str, Array]]:
    """Offers of ``rows`` rows. ``axis_names`` are those that the model gives its free axes ("" where it gives none)."""
    names = axis_names or {}
    leading = {names[spec.name][0] for spec in specs if names.get(spec.name)} - {""}
    seen: set[tuple[object, ...]] = set()
    for offer in _offers(specs):
        shapes = [_shape(spec, rows, offer, names.get(spec.name, ()), leading) for spec in specs]
        if (key := (offer.most, *map(tuple, shapes))) in seen:
            continue
        seen.add(key)
        # A number without an axis is a limit or a rate more often than a measurement: 1, 2, … in order.
        ordinals = count(1)
        yield {
            spec.name: _made_up(spec, shape, offer, place) if shape else _scalar(spec, next(ordinals), offer)
            for place, (spec, shape) in enumerate(zip(specs, shapes, strict=True))
        }


@dataclass(frozen=True)
class Extreme:
    """One row of values that nobody sends on purpose, to be put beside ordinary ones."""

    name: str
    feeds: dict[str, Array]


def extreme_rows(ordinary: Mapping[str, Array], *, divides: bool) -> Iterator[Extreme]:
    """Rows of the shapes and datatypes of ``ordinary`` (one row each), those that tell most first.

    ``divides``: a whole number of zero could be divided by, which ends the process; then there is none.
    """
    kinds = {array.dtype.kind for array in ordinary.values()}
    for name in _EXTREMES:
        wholes = name in _WHOLE_EXTREMES and not (divides and name in ("zero", "lowest"))
        if not ((kinds & {"f", "O"} and name not in ("1000", "30000")) or (kinds & {"i", "u", "b"} and wholes)):
            continue
        yield Extreme(name, {key: _extreme(array, name, wholes) for key, array in ordinary.items()})


def _extreme(array: Array, name: str, wholes: bool) -> Array:
    kind = array.dtype.kind
    if kind == "f":
        return np.full_like(array, _FLOAT_EXTREMES.get(name, lambda limits: 1.0)(np.finfo(array.dtype)))
    if kind == "O":
        return np.full_like(array, _TEXT_EXTREMES.get(name, "a"))
    if kind == "b":
        return np.full_like(array, name != "zero")
    if not wholes:
        return array
    limits = np.iinfo(array.dtype)
    value = {"zero": 0, "largest": int(limits.max), "lowest": int(limits.min)}.get(name)
    return np.full_like(array, min(int(name), int(limits.max)) if value is None else value)


def row_count(specs: Sequence[TensorSpec]) -> int:
    """How many rows a model takes at a time: its fixed leading length, or 1 where that is free."""
    fixed = [spec.shape[0] for spec in specs if spec.shape and spec.shape[0] != -1]
    return max(fixed[0], 1) if fixed else 1


def _offers(specs: Sequence[TensorSpec]) -> Iterator[_Offer]:
    free = [spec for spec in specs if -1 in spec.shape[1:]]
    # Tokens do not come by the thousand, and a model that compares each with each would take gigabytes for them.
    most_length = max(_FREE_LENGTHS) if any(spec.datatype.startswith("FP") for spec in free) else _MOST_TOKENS
    lengths = [length for length in _FREE_LENGTHS if length <= most_length] if free else _FREE_LENGTHS[:1]
    inside = any(spec.shape and spec.shape[0] != -1 and -1 in spec.shape[1:] for spec in specs)
    whole = any(spec.datatype.startswith(("INT", "UINT")) for spec in specs)
    for rows_inside in (True, False) if inside else (True,):
        for length in lengths:
            for most in (_WIDE, _NARROW) if whole else (_WIDE,):
                yield _Offer(length, rows_inside, most)


def _shape(spec: TensorSpec, rows: int, offer: _Offer, names: Sequence[str], leading: set[str]) -> list[int]:
    if not spec.shape:
        return []
    shape = [rows if spec.shape[0] == -1 else spec.shape[0]]
    for place, length in enumerate(spec.shape[1:], start=1):
        name = names[place] if place < len(names) else ""
        is_rows = name in leading if name else spec.shape[0] != -1
        shape.append(length if length != -1 else rows if is_rows and offer.rows_inside else offer.length)
    return shape


def _scalar(spec: TensorSpec, ordinal: int, offer: _Offer) -> Array:
    if spec.datatype == "BYTES":
        return np.array("a", dtype=np.object_)
    known = _by_name(spec.name)
    return np.array(known if known is not None else min(ordinal, offer.most - 1)).astype(DTYPES[spec.datatype])


def _made_up(spec: TensorSpec, shape: list[int], offer: _Offer, place: int) -> Array:
    if spec.datatype == "BYTES":
        texts = np.resize(np.array(_TEXTS, dtype=np.object_), shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        return np.array(np.broadcast_to(texts, shape))
    dtype, known = DTYPES[spec.datatype], _by_name(spec.name)
    if known is not None:
        return np.full(shape, known).astype(dtype)
    if dtype.kind == "f":
        scales = np.resize(np.array(_ROW_SCALES), shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        # Few decimals: as an example they are read by people.
        return np.round((_spread(shape, place) * 4 - 2) * scales, _DECIMALS).astype(dtype)
    most = _NARROW if dtype.kind == "b" else offer.most
    return np.asarray(np.floor(_spread(shape, place) * most).astype(dtype))


def _spread(shape: list[int], place: int) -> Array:
    """Numbers of [0, 1), evenly spread and never in step; numpy.random would take longer to import than most models to load."""
    # The steps are the two of Roberts' sequence, the plane's counterpart of the golden ratio.
    numbers: Array = np.arange(math.prod(shape), dtype=np.float64) * 0.754_877_666_246_692_7 + place * 0.569_840_290_998_053_2
    spread: Array = np.remainder(numbers, 1.0).reshape(shape)
    return spread


def _by_name(name: str) -> int | None:
    lower = name.lower()
    if any(word in lower for word in _ONES):
        return 1
    return 0 if any(word in lower for word in _ZEROS) else _BY_NAME.get(lower)
