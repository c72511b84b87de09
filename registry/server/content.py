"""Sends a blob: streamed, verified, in parts when asked (``Range``)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import BinaryIO

from flask import Response, request

from registry.blobs import CHUNK_BYTES, BlobStore
from registry.errors import BlobDamaged
from registry.server.errors import RangeRefused
from registry.server.threads import budget

_LOG = logging.getLogger(__name__)


def send_blob(store: BlobStore, digest: str, media_type: str = "application/octet-stream", *, name: str = "") -> Response:
    """The answer with a blob's content; 206 for one range, 416 outside. Raises BlobUnknown, RangeRefused.

    A damaged blob breaks the connection before its end, so that no client takes it for whole.
    """
    size = store.size(digest)
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
        response.call_on_close(budget().take_transfer(end - start))
        stream = store.open(digest) if (start, end) == (0, size) else store.open_unverified(digest)
        response.call_on_close(stream.close)
        response.response = _chunks(stream, start, end, digest)
    response.headers["Content-Length"] = str(end - start)
    return response


def _asked_range(size: int, digest: str) -> tuple[int, int] | None:
    """Start and end (exclusive) of the one range asked for; None means all of it, also for several ranges at once."""
    asked = request.range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    if request.headers.get("If-Range", f'"{digest}"') != f'"{digest}"':
        return None
    found = asked.range_for_length(size)
    if found is None:
        raise RangeRefused(value=request.headers.get("Range", "")[:80], size=size)
    return found


def _chunks(stream: BinaryIO, start: int, end: int, digest: str) -> Iterator[bytes]:
    if start:
        stream.seek(start)
    left = end - start
    try:
        while left > 0 and (chunk := stream.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    except BlobDamaged as problem:
        _LOG.error("%s", problem.sentence())
        raise
    if left > 0:
        _LOG.error("Blob %s ended %d bytes early", digest, left)
        raise BlobDamaged(digest=digest, found="a shorter file")
