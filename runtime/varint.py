"""Whole numbers as protobuf writes them. Reading them is `models/protobuf.py`, which has no time for a call each."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; of whole numbers from 0."""
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
