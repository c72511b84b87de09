"""What callers asked to be loaded, kept where a worker's end does not take it along: memory that all workers of a server share.

A worker that takes another's place serves what was last asked for, not what was named at the start. There are two places for the
text; a writer fills the one that is not in use and then turns one byte, so a writer that dies half-way leaves the old text.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import msgspec

from runtime.models.errors import LedgerFull
from runtime.models.model_repository import Wanted

CAPACITY = 1_048_576
_LENGTH_BYTES = 8
_PLACE_BYTES = CAPACITY + _LENGTH_BYTES


class Ledger:
    """Made before the first fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 + 2 * _PLACE_BYTES)

    def read(self) -> list[Wanted] | None:
        """What is wanted; None when nobody has asked for anything yet."""
        place = self._memory[0]
        if not place:
            return None
        start = 1 + (place - 1) * _PLACE_BYTES
        length = int.from_bytes(self._memory[start : start + _LENGTH_BYTES], "little")
        text = self._memory[start + _LENGTH_BYTES : start + _LENGTH_BYTES + length]
        return msgspec.json.decode(text, type=list[Wanted])

    def write(self, wanted: Sequence[Wanted]) -> None:
        """Raises LedgerFull."""
        text = msgspec.json.encode(list(wanted))
        if len(text) > CAPACITY:
            raise LedgerFull(limit=CAPACITY)
        place = 2 if self._memory[0] == 1 else 1
        start = 1 + (place - 1) * _PLACE_BYTES
        self._memory[start : start + _LENGTH_BYTES] = len(text).to_bytes(_LENGTH_BYTES, "little")
        self._memory[start + _LENGTH_BYTES : start + _LENGTH_BYTES + len(text)] = text
        self._memory[0] = place
