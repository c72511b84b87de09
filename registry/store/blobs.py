"""Which blobs the records know, and for how long each is kept although nothing refers to it (its lease).

A row is written after the content is durable, so a row promises content; see ``registry/blobs/port.py`` for how the two stay
together beside a garbage collection. A *condemned* row promises nothing any more: the collection is about to delete it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, case, delete, func, select, update

from hedgerow.contracts.model import FileEntry
from registry.blobs.errors import BlobMissing, BlobSizeWrong
from registry.blobs.hashing import CHUNK_BYTES, ChunkHashes
from registry.blobs.port import BlobStore, Staged
from registry.store.prepared import Prepared
from registry.store.tables import activity_blobs, blob_chunks, blobs
from registry.store.time_text import maybe_from_text, to_text
from registry.store.upsert import insert

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert

# As long as somebody may take from an upload to the record that refers to it.
LEASE_S = 24 * 3600.0
# A lease that ended before every other; see ``garbage.py``.
CONDEMNED = "-"
# SQLite takes 32 766 values in one statement; a folder may have more files.
_MANY = 1000
# FOR SHARE: neither condemned nor deleted before this transaction ends (a snapshot cannot lock, and need not).
_THERE = select(blobs.c.digest, blobs.c.size_bytes).where(blobs.c.leased_until != CONDEMNED).with_for_update(read=True)
_SIZES = _THERE.where(blobs.c.digest.in_(bindparam("digests", expanding=True))).order_by(blobs.c.digest)
_SIZE = Prepared(lambda _: _THERE.where(blobs.c.digest == bindparam("digest")))


def record(
    connection: Connection,
    digest: str,
    size_bytes: int,
    now: datetime,
    *,
    chunks: ChunkHashes | None = None,
    lease_s: float = LEASE_S,
) -> datetime:
    """Make stored content known, or known again, and lease it; holds the row until the commit. Returns the lease's end.

    Whoever has the content staged confirms it afterwards: :func:`record_staged`.
    """
    until = now + timedelta(seconds=lease_s)
    row = {"digest": digest, "size_bytes": size_bytes, "stored_at": to_text(now), "leased_until": to_text(until)}
    _KNOWN.run(connection, row)
    if chunks is not None:
        keep_chunks(connection, digest, chunks)
    return until


def _known(dialect: str) -> Insert:
    statement = insert(dialect, blobs)
    new = statement.excluded
    # Never shorter: somebody else may have been promised more. An update always, also of nothing: it is what holds the row.
    longer = case((blobs.c.leased_until > new.leased_until, blobs.c.leased_until), else_=new.leased_until)
    changed = {"size_bytes": new.size_bytes, "leased_until": longer}
    return statement.on_conflict_do_update(index_elements=[blobs.c.digest], set_=changed)


_KNOWN = Prepared(_known, columns=("digest", "size_bytes", "stored_at", "leased_until"))


def record_staged(connection: Connection, staged: Staged, now: datetime, *, lease_s: float = LEASE_S) -> datetime:
    """:func:`record`, and make sure that the content is there when the transaction commits. Raises StorageUnavailable."""
    until = record(connection, staged.digest, staged.size_bytes, now, chunks=staged.chunks, lease_s=lease_s)
    staged.confirm()
    return until


def record_stored(
    connection: Connection, store: BlobStore, digest: str, size_bytes: int, now: datetime, *, chunk_hashes: bytes = b""
) -> None:
    """:func:`record` for content that a helper process published and that this transaction refers to: it needs no lease.

    Nothing is kept to publish it again.

    Raises BlobMissing when it was taken away before this: do the work again.
    """
    chunks = ChunkHashes(CHUNK_BYTES, chunk_hashes) if chunk_hashes else None
    record(connection, digest, size_bytes, now, chunks=chunks, lease_s=0.0)
    if not store.has(digest):
        raise BlobMissing(path="what was just made", digest=digest)


def is_known(connection: Connection, digest: str) -> bool:
    query = select(blobs.c.digest).where(blobs.c.digest == digest, blobs.c.leased_until != CONDEMNED)
    return connection.execute(query).first() is not None


def size_of(connection: Connection, digest: str) -> int | None:
    """In bytes; None when it is not known."""
    query = select(blobs.c.size_bytes).where(blobs.c.digest == digest, blobs.c.leased_until != CONDEMNED)
    return connection.execute(query).scalar_one_or_none()


def oldest(connection: Connection) -> datetime | None:
    """When the oldest blob was stored first; None without any."""
    found = connection.execute(select(func.min(blobs.c.stored_at))).scalar_one()
    return maybe_from_text(found)


def require(connection: Connection, files: Iterable[FileEntry]) -> None:
    """Raises BlobMissing or BlobSizeWrong for the first file whose content is not stored as it says.

    In a writing transaction: what was found cannot be collected before its end.
    """
    wanted = list(files)
    sizes = _sizes(connection, [entry.digest for entry in wanted])
    for entry in wanted:
        if entry.digest not in sizes:
            raise BlobMissing(path=entry.path, digest=entry.digest)
        if sizes[entry.digest] != entry.size_bytes:
            raise BlobSizeWrong(path=entry.path, announced=entry.size_bytes, stored=sizes[entry.digest])


def lease(connection: Connection, digests: Iterable[str], now: datetime, *, lease_s: float = LEASE_S) -> dict[str, str]:
    """Renew the leases of those of ``digests`` that are known; their former lease ends, by digest.

    A lease with more than half of its time left stays as it is: asking often costs no writing.
    """
    until, half = to_text(now + timedelta(seconds=lease_s)), to_text(now + timedelta(seconds=lease_s / 2))
    before: dict[str, str] = {}
    # In one order everywhere, so that two who ask for the same never wait for each other.
    for part in _parts(sorted(set(digests))):
        query = select(blobs.c.digest, blobs.c.leased_until).where(blobs.c.digest.in_(part), blobs.c.leased_until != CONDEMNED)
        found = {row.digest: row.leased_until for row in connection.execute(query.order_by(blobs.c.digest).with_for_update())}
        late = [digest for digest, ends in found.items() if ends < half]
        if late:
            connection.execute(update(blobs).where(blobs.c.digest.in_(late)).values(leased_until=until))
        before |= found
    return before


# --- chunks -------------------------------------------------------------------------------------------------------------


def chunks_of(connection: Connection, digest: str) -> ChunkHashes | None:
    """None for a blob of one chunk, and for one that was stored before chunks were hashed."""
    row = connection.execute(select(blob_chunks).where(blob_chunks.c.digest == digest)).one_or_none()
    return None if row is None else ChunkHashes(row.chunk_bytes, row.hashes)


def keep_chunks(connection: Connection, digest: str, chunks: ChunkHashes) -> None:
    """Of a blob that is known. The same content has the same hashes: a second time changes nothing."""
    values = {"digest": digest, "chunk_bytes": chunks.chunk_bytes, "hashes": chunks.hashes}
    statement = insert(connection, blob_chunks).values(**values)
    connection.execute(statement.on_conflict_do_nothing(index_elements=[blob_chunks.c.digest]))


# --- what unfinished work needs -----------------------------------------------------------------------------------------


def hold_for_activity(connection: Connection, activity_id: str, digests: Iterable[str]) -> None:
    """Keep blobs until the activity ends (``activities`` lets go of them then). They must be known (:func:`require`)."""
    rows = [{"activity_id": activity_id, "digest": digest} for digest in sorted(set(digests))]
    for start in range(0, len(rows), _MANY):
        statement = insert(connection, activity_blobs).on_conflict_do_nothing()
        connection.execute(statement, rows[start : start + _MANY])


def hold_known(connection: Connection, activity_id: str, digests: Iterable[str]) -> list[str]:
    """:func:`hold_for_activity` for those of ``digests`` that are known; returns these."""
    found = sorted(_sizes(connection, list(digests)))
    hold_for_activity(connection, activity_id, found)
    return found


def release_activity(connection: Connection, activity_id: str) -> None:
    """The activity ended: what it held is free."""
    connection.execute(delete(activity_blobs).where(activity_blobs.c.activity_id == activity_id))


def _sizes(connection: Connection, digests: list[str]) -> dict[str, int]:
    wanted = sorted(set(digests))
    if len(wanted) == 1:  # as most models have it
        return {row.digest: row.size_bytes for row in _SIZE.rows(connection, {"digest": wanted[0]})}
    found: dict[str, int] = {}
    for part in _parts(wanted):
        found |= {row.digest: row.size_bytes for row in connection.execute(_SIZES, {"digests": list(part)})}
    return found


def _parts(digests: Sequence[str]) -> Iterable[Sequence[str]]:
    return (digests[start : start + _MANY] for start in range(0, len(digests), _MANY))
