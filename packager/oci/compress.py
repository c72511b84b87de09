"""Packs and unpacks the bytes of layers. What comes out depends on the plain bytes alone, on any machine and any Python.

Python's own zlib is whatever the distribution links (zlib, zlib-ng, …), and these differ in their bytes. So gzip is written
by libdeflate and zstd by libzstd, each bundled in a wheel that pyproject.toml pins exactly. A gzip layer is a row of members
of MEMBER_BYTES plain bytes (RFC 1952, section 2.2), packed on all cores, with memory for a few members only.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import deflate

from hedgerow.contracts.build import Compression
from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_LAYER_ZSTD

MEMBER_BYTES = 4 << 20
_GZIP_LEVEL, _ZSTD_LEVEL = 5, 9
_LAYER_TYPES: dict[Compression, str] = {"gzip": MEDIA_OCI_LAYER_GZIP, "zstd": MEDIA_OCI_LAYER_ZSTD}


def layer_type(compression: Compression) -> str:
    """The media type of a layer that is packed so."""
    return _LAYER_TYPES[compression]


def compressor_name(media_type: str) -> str:
    """What decides a layer's bytes besides its content; part of every cache key."""
    if media_type == MEDIA_OCI_LAYER_GZIP:
        return f"deflate {deflate.__version__} level {_GZIP_LEVEL} members {MEMBER_BYTES}"
    if media_type == MEDIA_OCI_LAYER_ZSTD:
        import zstandard

        return f"zstandard {zstandard.__version__} level {_ZSTD_LEVEL}"
    return "none"


def packed(media_type: str, chunks: Iterable[bytes], seen: Callable[[bytes], None]) -> Iterator[bytes]:
    """``chunks`` as the blob of a layer of that type; ``seen`` gets the plain bytes on their way."""
    if media_type == MEDIA_OCI_LAYER_GZIP:
        return _gzip(_passing(chunks, seen))
    if media_type == MEDIA_OCI_LAYER_ZSTD:
        return _zstd(_passing(chunks, seen))
    return _passing(chunks, seen)


def is_packed(media_type: str) -> bool:
    """Whether the blob differs from the plain tar."""
    return media_type.endswith(("+gzip", "+zstd"))


def _passing(chunks: Iterable[bytes], seen: Callable[[bytes], None]) -> Iterator[bytes]:
    for chunk in chunks:
        seen(chunk)
        yield chunk


def _gzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    cores = os.cpu_count() or 1
    waiting: deque[Future[bytes | bytearray]] = deque()
    with ThreadPoolExecutor(max_workers=cores) as pool:
        for member in _members(chunks):
            waiting.append(pool.submit(deflate.gzip_compress, member, _GZIP_LEVEL))
            if len(waiting) > cores:
                yield bytes(waiting.popleft().result())
        while waiting:
            yield bytes(waiting.popleft().result())


def _members(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of MEMBER_BYTES (the last one shorter), however they come; at least one piece."""
    kept, length, any_member = [], 0, False
    for chunk in chunks:
        view = memoryview(chunk)
        while length + len(view) >= MEMBER_BYTES:
            taken = MEMBER_BYTES - length
            kept.append(view[:taken])
            yield b"".join(kept)
            view, kept, length, any_member = view[taken:], [], 0, True
        if view:
            kept.append(view)
            length += len(view)
    if length or not any_member:
        yield b"".join(kept)


def _zstd(chunks: Iterable[bytes]) -> Iterator[bytes]:
    import zstandard

    # One thread: with several, the bytes depend on how many there are.
    packing = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=0).compressobj()
    for chunk in _members(chunks):
        if piece := packing.compress(chunk):
            yield piece
    yield packing.flush()
