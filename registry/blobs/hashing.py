"""Digests while content flows: of the whole, of each 4 MiB chunk, and a reader that keeps its last bytes until it is sure."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from registry.blobs.errors import BlobDamaged

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

READ_BYTES = 1024 * 1024
# What one range costs at least: so much is read and hashed before its first byte leaves.
CHUNK_BYTES = 4 * 1024 * 1024
DIGEST_BYTES = 32
# Pieces on their way to a hash; more would only be memory.
_AHEAD = 4


class Readable(Protocol):
    """Anything that content can be read from."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class ChunkHashes:
    """sha256 of each ``chunk_bytes`` of a blob (the last one shorter), 32 bytes each, one after the other."""

    chunk_bytes: int
    hashes: bytes

    def of(self, number: int) -> bytes:
        """The hash of chunk ``number`` (from 0); empty beyond the end."""
        return self.hashes[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]


@dataclass(frozen=True)
class Hashed:
    """What content turned out to be. ``chunks`` is None for content of at most one chunk: its digest proves it."""

    digest: str
    size_bytes: int
    chunks: ChunkHashes | None


def copy_hashed(source: Readable, write: Callable[[bytes], object] | None = None) -> Hashed:
    """Read ``source`` to its end, giving each piece to ``write``. Memory stays at a few pieces of 1 MiB."""
    whole, chunks, size = hashlib.sha256(), _ChunkHasher(), 0
    with ExitStack() as helpers:
        in_turn: list[_Turn] = []
        while piece := source.read(READ_BYTES):
            size += len(piece)
            if size > CHUNK_BYTES and not in_turn:
                # Large content: the two hashes run beside each other and beside reading (hashlib lets go of the interpreter).
                in_turn = [helpers.enter_context(_Turn(whole.update)), helpers.enter_context(_Turn(chunks.update))]
            for turn in in_turn:
                turn.give(piece)
            if not in_turn:
                whole.update(piece)
                chunks.update(piece)
            if write is not None:
                write(piece)
        for turn in in_turn:
            turn.finish()
    hashes = ChunkHashes(CHUNK_BYTES, chunks.finish()) if size > CHUNK_BYTES else None
    return Hashed(f"sha256:{whole.hexdigest()}", size, hashes)


class _Turn:
    """Calls ``action`` with each piece, in order, in a thread of its own; at most a few pieces wait."""

    def __init__(self, action: Callable[[bytes], None]) -> None:
        self._action = action
        self._thread = ThreadPoolExecutor(1, "blob-hash")
        self._waiting: list[Future[None]] = []

    def give(self, piece: bytes) -> None:
        if len(self._waiting) >= _AHEAD:
            self._waiting.pop(0).result()
        self._waiting.append(self._thread.submit(self._action, piece))

    def finish(self) -> None:
        for done in self._waiting:
            done.result()

    def __enter__(self) -> _Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()


class _ChunkHasher:
    def __init__(self) -> None:
        self._done, self._sha, self._room = bytearray(), hashlib.sha256(), CHUNK_BYTES

    def update(self, piece: ReadableBuffer) -> None:
        rest = memoryview(piece)
        while len(rest) >= self._room:
            self._sha.update(rest[: self._room])
            rest = rest[self._room :]
            self._done += self._sha.digest()
            self._sha, self._room = hashlib.sha256(), CHUNK_BYTES
        self._sha.update(rest)
        self._room -= len(rest)

    def finish(self) -> bytes:
        if self._room < CHUNK_BYTES:
            self._done += self._sha.digest()
        return bytes(self._done)


class VerifiedReader(io.RawIOBase):
    """Reads ``file`` to its end and raises BlobDamaged in place of the last bytes when the whole was not ``digest``."""

    def __init__(self, file: BinaryIO, digest: str, size: int) -> None:
        self._file, self._digest, self._left, self._sha = file, digest, size, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # RawIOBase only ever hands out memoryviews
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]  # files opened "rb" have it, BinaryIO does not say so
        self._sha.update(buffer[:count])
        self._left -= count
        if self._left <= 0 or count == 0:
            self._check()
        return int(count)

    def _check(self) -> None:
        found = f"sha256:{self._sha.hexdigest()}"
        if found != self._digest:
            raise BlobDamaged(digest=self._digest, found=found)

    def close(self) -> None:
        self._file.close()
        super().close()
