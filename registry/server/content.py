"""Sends a blob: streamed, in parts when asked (``Range``), and every byte checked before it leaves."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

from flask import Response, request

from registry.blobs import CHUNK_BYTES, READ_BYTES, BlobStore, ChunkHashes
from registry.blobs.errors import BlobDamaged, BlobUnknown
from registry.blobs.ranges import hash_chunks, read_verified
from registry.server.errors import RangeRefused
from registry.server.http import context
from registry.server.threads import budget
from registry.store import blobs

_LOG = logging.getLogger(__name__)


def send_blob(store: BlobStore, digest: str, media_type: str = "application/octet-stream", *, name: str = "") -> Response:
    """The answer with a blob's content; 206 for one range, 416 outside. Raises BlobUnknown, BlobDamaged, RangeRefused.

    Damage at the beginning is an answer (503); damage further on breaks the connection there. Wrong bytes never leave.
    """
    size = _right_size(store, digest)
    part = _asked_range(size, digest)
    start, end = part or (0, size)
    response = Response(status=206 if part else 200, mimetype=media_type)
    response.headers["ETag"] = f'"{digest}"'
    response.headers["Accept-Ranges"] = "bytes"
    # Content under a digest never changes; a browser must not take it for one of our pages.
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    response.headers["Content-Disposition"] = "attachment"
    if name:
        response.headers.set("Content-Disposition", "attachment", filename=name.rpartition("/")[2])
    if part:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if request.method != "HEAD":
        # The thread's share is given back when the connection is done, even if the stream was never begun.
        done = budget().take_transfer(end - start)
        response.call_on_close(done)
        try:
            response.response = _begun(_logged(_content(store, digest, size, start, end)))
        except BaseException:
            done()
            raise
    response.headers["Content-Length"] = str(end - start)
    return response


def chunks_for(store: BlobStore, digest: str, size: int) -> ChunkHashes | None:
    """What proves parts of a blob. One that was stored before chunks were hashed is read once, and they are kept.

    Raises BlobDamaged, BlobUnknown.
    """
    if size <= CHUNK_BYTES:
        return None
    with context().database.read() as connection:
        chunks = blobs.chunks_of(connection, digest)
    if chunks is None and (chunks := hash_chunks(store, digest)) is not None:
        with context().database.write() as connection:
            if blobs.is_known(connection, digest):
                blobs.keep_chunks(connection, digest, chunks)
    return chunks


def _right_size(store: BlobStore, digest: str) -> int:
    """As recorded: a file cut off where a chunk ends would prove each of its bytes. Raises BlobUnknown, BlobDamaged."""
    with context().database.read() as connection:
        size = blobs.size_of(connection, digest)
    if size is None:
        raise BlobUnknown(digest=digest[:80])
    if (found := store.size(digest)) != size:
        problem = BlobDamaged(digest=digest, found=f"a file of {found} bytes instead of {size}")
        _LOG.error("%s", problem.sentence())
        raise problem
    return size


def _asked_range(size: int, digest: str) -> tuple[int, int] | None:
    """Start and end (exclusive) of the one range asked for; None means all of it, also for several ranges at once."""
    asked = request.range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    if request.headers.get("If-Range", f'"{digest}"') != f'"{digest}"':
        return None
    first, _ = asked.ranges[0]
    if first is not None and -first >= size > 0:
        return 0, size  # its last N bytes, of fewer: all of it (RFC 9110, section 14.1.2)
    found = asked.range_for_length(size)
    if found is None:
        raise RangeRefused(value=request.headers.get("Range", "")[:80], size=size)
    return found


def _content(store: BlobStore, digest: str, size: int, start: int, end: int) -> Iterator[bytes]:
    for piece in read_verified(store, digest, size, chunks_for(store, digest, size), start, end):
        rest = memoryview(piece)
        # A slow reader is served from one chunk of memory, in pieces that let the server see that it is still there.
        for at in range(0, len(rest), READ_BYTES):
            yield bytes(rest[at : at + READ_BYTES])


def _begun(stream: Iterator[bytes]) -> Iterator[bytes]:
    """``stream`` with its first piece read: what is wrong at once can still be said with a status."""
    return itertools.chain([next(stream, b"")], stream)


def _logged(stream: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from stream
    except BlobDamaged as problem:
        _LOG.error("%s", problem.sentence())
        raise
