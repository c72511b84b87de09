"""Walks the bytes of a protobuf message field by field, without a schema or a copy. Reading an ONNX file stands on it."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Payload = int | memoryview


def fields(view: memoryview) -> Iterator[tuple[int, Payload]]:
    """Fields of one message in order; numbers of fixed width are passed over.

    Raises ValueError for anything that is no protobuf of the kinds ONNX uses.
    """
    at, end = 0, len(view)
    while at < end:
        tag = view[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(view, at - 1)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if kind == _BYTES:
            # One byte, most often: this loop is where the time goes.
            if at < end and view[at] < 0x80:
                length, at = view[at], at + 1
            else:
                length, at = _varint(view, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("a wire type that ONNX does not use")
        if at + length > end:
            raise ValueError("a field that ends after the file")
        if kind == _BYTES:
            yield number, view[at : at + length]
        at += length


def text(value: Payload | None) -> str:
    """A field of text; empty for anything else. Raises ValueError where it is not UTF-8."""
    return bytes(value).decode() if isinstance(value, memoryview) else ""


def number(value: Payload | None) -> int:
    """A whole number as it was written; 0 for anything else."""
    return value if isinstance(value, int) else 0


def signed(value: int) -> int:
    """An int64 out of a varint, which carries it as its 64 bits."""
    return value - 2**64 if value >= 2**63 else value


def whole_numbers(value: Payload) -> list[int]:
    """A repeated int64, packed or one by one."""
    if isinstance(value, int):
        return [signed(value)]
    found, at = [], 0
    while at < len(value):
        one, at = _varint(value, at)
        found.append(signed(one))
    return found


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(view) or shift > 63:
            raise ValueError("a number that does not end")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
