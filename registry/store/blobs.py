"""Which blobs the records know. A row is written after the content is durable, so a row promises content."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, select

from hedgerow.contracts.model import FileEntry
from registry.errors import BlobMissing, BlobSizeWrong
from registry.store.tables import blobs
from registry.store.time_text import to_text
from registry.store.upsert import insert

# SQLite takes 32 766 values in one statement; a folder may have more files.
_MANY = 1000


def record(connection: Connection, digest: str, size_bytes: int, now: datetime) -> None:
    """Make a stored blob known; again changes nothing."""
    statement = insert(connection, blobs).values(digest=digest, size_bytes=size_bytes, stored_at=to_text(now))
    connection.execute(statement.on_conflict_do_nothing(index_elements=[blobs.c.digest]))


def is_known(connection: Connection, digest: str) -> bool:
    return connection.execute(select(blobs.c.digest).where(blobs.c.digest == digest)).first() is not None


def require(connection: Connection, files: Iterable[FileEntry]) -> None:
    """Raises BlobMissing or BlobSizeWrong for the first file whose content is not stored as it says."""
    wanted = list(files)
    sizes = _sizes(connection, [entry.digest for entry in wanted])
    for entry in wanted:
        if entry.digest not in sizes:
            raise BlobMissing(path=entry.path, digest=entry.digest)
        if sizes[entry.digest] != entry.size_bytes:
            raise BlobSizeWrong(path=entry.path, announced=entry.size_bytes, stored=sizes[entry.digest])


def _sizes(connection: Connection, digests: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(digests), _MANY):
        part = digests[start : start + _MANY]
        rows = connection.execute(select(blobs.c.digest, blobs.c.size_bytes).where(blobs.c.digest.in_(part)))
        found |= {row.digest: row.size_bytes for row in rows}
    return found
