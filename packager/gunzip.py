"""Unpacks gzip piece by piece with bounded memory, also when a file is several gzip members one after another."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE_BYTES = 1 << 20


class Gunzip:
    """Feed compressed chunks, get plain pieces of at most PIECE_BYTES. Raises zlib.error for what is no gzip."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._member.eof:
                self._member = zlib.decompressobj(31)
            if piece := self._member.decompress(chunk, PIECE_BYTES):
                yield piece
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    @property
    def is_whole(self) -> bool:
        """Whether the last member was complete."""
        return self._member.eof
