"""``/api/v1/blobs``: file contents by digest, streamed both ways. A blob is there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from flask import Blueprint, Response, g, request
from sqlalchemy import Connection

from hedgerow.contracts.api import AskForBlobs, BlobBatch, BlobChunks, BlobInfo, MissingBlobs
from hedgerow.contracts.document import digest_of
from hedgerow.contracts.names import is_digest
from registry.blobs import Staged
from registry.blobs.errors import BlobDamaged, BlobUnknown, DigestMismatch, StorageUnavailable
from registry.blobs.many import staged_together
from registry.server.content import chunks_for, send_blob
from registry.server.errors import ContentTypeRefused, DocumentTooLarge, MalformedRequest, RangeRefused, TooManyTransfers
from registry.server.http import BodyStream, answer, context, read_body, tell, write_once
from registry.server.operation import operation
from registry.server.threads import budget
from registry.store import blobs
from registry.store.time_text import to_text

_OCTETS = "application/octet-stream"
# Digest (32 bytes) and size (8 bytes, big-endian) before each content of a batch.
_HEAD_BYTES = 40
_BATCH_ITEMS, _BATCH_BYTES, _BATCH_ITEM_BYTES = 1000, 16 * 1024 * 1024, 4 * 1024 * 1024
# Looks at an object store that go on at once.
_AT_ONCE = 16
_DIGESTS_BODY_BYTES = 1024 * 1024


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("blobs", __name__, url_prefix="/api/v1/blobs")
    blueprint.post("/missing")(ask_for_blobs)
    blueprint.post("/batch")(put_batch)
    blueprint.put("/<digest>")(put_blob)
    blueprint.get("/<digest>")(get_blob)
    blueprint.get("/<digest>/chunks")(show_chunks)
    return blueprint


@operation(
    "Store the body under its digest",
    "contributor",
    scope="blobs",
    body=_OCTETS,
    result=BlobInfo,
    status=201,
    errors=(DigestMismatch, BlobUnknown, ContentTypeRefused, StorageUnavailable, TooManyTransfers),
)
def put_blob(digest: str) -> Response:
    """Store the body as ``digest``; 201 even if it was there before (the new copy replaces the old one)."""
    _check_octets()
    if not is_digest(digest):
        raise BlobUnknown(digest=digest[:80])
    here = context()
    done = budget().take_transfer(request.content_length)
    try:
        # Content first, row second: what a record can refer to is always there.
        with here.blobs.stage(BodyStream(), digest) as staged:
            return write_once(lambda connection: _record_one(connection, staged))
    finally:
        done()


@operation(
    "Store many small contents at once",
    "contributor",
    scope="blobs",
    body=_OCTETS,
    result=BlobBatch,
    status=201,
    errors=(DigestMismatch, ContentTypeRefused, DocumentTooLarge, StorageUnavailable, TooManyTransfers),
)
def put_batch() -> Response:
    """The body is a row of contents, each after its digest (32 bytes) and its size (8 bytes, big-endian).

    At most 1000 contents of at most 4 MiB, 16 MiB together. All are stored, or none is recorded.
    """
    _check_octets()
    if (request.content_length or 0) > _BATCH_BYTES + _BATCH_ITEMS * _HEAD_BYTES:
        raise DocumentTooLarge(limit_bytes=_BATCH_BYTES)
    done = budget().take_transfer(request.content_length)
    try:
        parts = list(_parts(BodyStream()))
        # What a repeated Idempotency-Key is compared by.
        g.body_digest = digest_of("".join(digest for digest, _ in parts).encode())
        with staged_together(context().blobs, parts) as staged:
            return write_once(lambda connection: _record_all(connection, staged))
    finally:
        done()


@operation(
    "Which contents are not stored",
    "contributor",
    scope="blobs",
    body=AskForBlobs,
    result=MissingBlobs,
)
def ask_for_blobs() -> Response:
    """Those that are stored get a new lease: nothing takes them away before the record that will refer to them."""
    wanted = read_body(AskForBlobs, limit_bytes=_DIGESTS_BODY_BYTES)
    return write_once(lambda connection: _missing(connection, wanted.digests))


@operation(
    "A content by its digest",
    "reader",
    scope="blobs",
    result=_OCTETS,
    errors=(BlobUnknown, BlobDamaged, RangeRefused, TooManyTransfers),
)
def get_blob(digest: str) -> Response:
    """Whole, or one range of it; every byte is checked before it is sent."""
    _known_size(digest)
    return send_blob(context().blobs, digest)


@operation(
    "What proves parts of a content",
    "reader",
    scope="blobs",
    result=BlobChunks,
    errors=(BlobUnknown, BlobDamaged, TooManyTransfers),
)
def show_chunks(digest: str) -> Response:
    """The sha256 of each chunk. A blob stored by an older version is read once for it."""
    size = _known_size(digest)
    done = budget().take_transfer(size)
    try:
        chunks = chunks_for(context().blobs, digest, size)
    finally:
        done()
    if chunks is None:
        hashes, chunk_bytes = [digest.removeprefix("sha256:")], max(1, size)
    else:
        hashes, chunk_bytes = [chunks.of(n).hex() for n in range(-(-size // chunks.chunk_bytes))], chunks.chunk_bytes
    return answer(BlobChunks(digest=digest, size_bytes=size, chunk_bytes=chunk_bytes, hashes=hashes))


def _record_one(connection: Connection, staged: Staged) -> Response:
    until = blobs.record_staged(connection, staged, context().clock.now(), lease_s=context().settings.blob_lease_s)
    tell(connection, "blob.stored", f"blob/{staged.digest}", size_bytes=str(staged.size_bytes))
    return answer(BlobInfo(digest=staged.digest, size_bytes=staged.size_bytes, leased_until=until), 201)


def _record_all(connection: Connection, staged: list[Staged]) -> Response:
    here = context()
    now = until = here.clock.now()
    # They are in the order of digests: two batches with the same contents never wait for each other.
    for one in staged:
        until = blobs.record(connection, one.digest, one.size_bytes, now, chunks=one.chunks, lease_s=here.settings.blob_lease_s)
    # Looks at a store that may be far away, while this transaction keeps others waiting.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(Staged.confirm, staged))
    size = sum(one.size_bytes for one in staged)
    tell(connection, "blobs.stored", "blobs", count=str(len(staged)), size_bytes=str(size))
    return answer(BlobBatch(count=len(staged), size_bytes=size, leased_until=until), 201)


def _missing(connection: Connection, digests: list[str]) -> Response:
    here = context()
    now = here.clock.now()
    ended_before = to_text(now)
    leased = blobs.lease(connection, digests, now, lease_s=here.settings.blob_lease_s)
    # Nobody has asked for these in a long time: a look whether somebody took the file away costs little.
    old = [digest for digest, until in leased.items() if until <= ended_before]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        gone = {digest for digest, found in zip(old, pool.map(here.blobs.has, old), strict=True) if not found}
    missing = [digest for digest in dict.fromkeys(digests) if digest not in leased or digest in gone]
    return answer(MissingBlobs(missing=missing))


def _parts(body: BodyStream) -> Iterator[tuple[str, bytes]]:
    """(digest, content) of a batch. Raises MalformedRequest, DocumentTooLarge."""
    total = count = 0
    while head := _exactly(body, _HEAD_BYTES, may_end=True):
        size = int.from_bytes(head[32:], "big")
        count, total = count + 1, total + size
        if size > _BATCH_ITEM_BYTES or total > _BATCH_BYTES:
            raise DocumentTooLarge(limit_bytes=_BATCH_ITEM_BYTES if size > _BATCH_ITEM_BYTES else _BATCH_BYTES)
        if count > _BATCH_ITEMS:
            raise MalformedRequest(problem=f"a batch holds at most {_BATCH_ITEMS} contents")
        yield f"sha256:{head[:32].hex()}", _exactly(body, size)
    if not count:
        raise MalformedRequest(problem="the batch holds no content")


def _exactly(body: BodyStream, size: int, *, may_end: bool = False) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := body.read(size - len(data))):
        data += piece
    if len(data) < size and not (may_end and not data):
        raise MalformedRequest(problem="the batch ends in the middle of a content")
    return bytes(data)


def _check_octets() -> None:
    if request.mimetype not in (_OCTETS, ""):
        raise ContentTypeRefused(found=request.mimetype, expected=_OCTETS)


def _known_size(digest: str) -> int:
    with context().database.read() as connection:
        size = blobs.size_of(connection, digest) if is_digest(digest) else None
    if size is None:
        raise BlobUnknown(digest=digest[:80])
    return size
