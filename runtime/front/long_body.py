"""A body of many parts becomes one piece of memory while it comes, in small steps.

Joining the parts at the end would hold the body twice, and the event loop for as long as the system takes to find the memory:
tens of milliseconds. So memory is reserved ahead, which costs nothing until it is written: what the head announces, but never
more than a fixed multiple of what has come.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Final

# As a multiple of what has come. Moving that costs little of what receiving it did.
_AHEAD: Final = 4
_FAR_AHEAD: Final = 64
# From here on the system gives fresh memory, page by page as it is written; below, some must be cleared at once.
_FRESH_BYTES: Final = 32 * 1024 * 1024


class LongBody:
    """``announced``: how long it will be, by its head; None when that says nothing."""

    def __init__(self, announced: int | None) -> None:
        self._announced = announced
        self._memory = BytesIO()
        self._room = self._come = 0

    def add(self, parts: Iterable[bytes]) -> None:
        for part in parts:
            if self._come + len(part) > self._room:
                self._reserve(self._come + len(part))
            self._memory.write(part)
            self._come += len(part)

    def whole(self) -> bytes:
        """The body; nothing is added afterwards."""
        self._memory.truncate(self._come)
        # Its own memory: as long as nobody else knows it, it is handed out without a copy.
        return self._memory.getvalue()

    def _reserve(self, least: int) -> None:
        announced = self._announced or 0
        # All of it where that can be had, so that it is moved no more.
        reach = _FAR_AHEAD if announced >= _FRESH_BYTES else 2 * _AHEAD
        self._room = announced if least <= announced <= reach * least else _AHEAD * least
        # Zeros from the system: no memory until they are written over.
        memory = BytesIO(bytes(self._room))
        memory.write(self._memory.getbuffer()[: self._come])
        self._memory = memory
