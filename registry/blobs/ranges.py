"""Parts of a blob that are checked before they leave: whole chunks are read, compared with their hashes, and cut to size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from registry.blobs.errors import BlobDamaged
from registry.blobs.hashing import CHUNK_BYTES, ChunkHashes, copy_hashed
from registry.blobs.port import BlobStore


def hash_chunks(store: BlobStore, digest: str) -> ChunkHashes | None:
    """Of a blob that was stored without them; reads all of it. None for one chunk. Raises BlobDamaged, BlobUnknown."""
    with store.open(digest) as content:
        return copy_hashed(content).chunks


def read_verified(store: BlobStore, digest: str, size: int, chunks: ChunkHashes | None, start: int, end: int) -> Iterator[bytes]:
    """Bytes ``start`` to ``end`` (exclusive) in pieces of at most one chunk; each is right when it is given out.

    ``size`` is the blob's, as recorded. Raises BlobDamaged in place of what is wrong or missing, BlobUnknown.
    """
    chunk_bytes = chunks.chunk_bytes if chunks is not None else max(size, CHUNK_BYTES)
    for number in range(start // chunk_bytes, -(-end // chunk_bytes)):
        first = number * chunk_bytes
        wanted = min(chunk_bytes, size - first)
        data = store.read_at(digest, first, wanted)
        expected = chunks.of(number) if chunks is not None else bytes.fromhex(digest.removeprefix("sha256:"))
        if len(data) != wanted or hashlib.sha256(data).digest() != expected:
            raise BlobDamaged(digest=digest, found=_what(data, wanted, first))
        yield data[max(0, start - first) : end - first]


def _what(data: bytes, wanted: int, first: int) -> str:
    if len(data) < wanted:
        return f"a shorter file: it ends at byte {first + len(data)}"
    return f"{hashlib.sha256(data).hexdigest()} from byte {first}"
