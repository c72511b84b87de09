"""``/api/v1/blobs``: file contents by digest, streamed both ways. A blob is there whole or not at all."""

from __future__ import annotations

from flask import Blueprint, Response, request

from hedgerow.contracts.api import BlobInfo
from registry.errors import BlobUnknown
from registry.server.content import send_blob
from registry.server.errors import ContentTypeRefused
from registry.server.http import BodyStream, answer, context, needs
from registry.server.threads import budget
from registry.store import blobs


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("blobs", __name__, url_prefix="/api/v1/blobs")
    blueprint.put("/<digest>")(put_blob)
    blueprint.get("/<digest>")(get_blob)
    return blueprint


@needs("contributor")
def put_blob(digest: str) -> Response:
    """Store the body as ``digest``; 201 even if it was there before (the new copy replaces the old one)."""
    if request.mimetype not in ("application/octet-stream", ""):
        raise ContentTypeRefused(found=request.mimetype, expected="application/octet-stream")
    here = context()
    here.blobs.path(digest)  # a digest that is none is refused before the body is read
    done = budget().take_transfer(request.content_length)
    try:
        digest, size = here.blobs.put(BodyStream(), digest)
    finally:
        done()
    # Content first, row second: what a record can refer to is always there.
    with here.database.write() as connection:
        blobs.record(connection, digest, size, here.clock.now())
    return answer(BlobInfo(digest=digest, size_bytes=size), 201)


@needs("reader")
def get_blob(digest: str) -> Response:
    here = context()
    with here.database.read() as connection:
        if not blobs.is_known(connection, digest):
            raise BlobUnknown(digest=digest[:80])
    return send_blob(here.blobs, digest)
