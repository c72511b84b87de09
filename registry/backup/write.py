"""A backup, from top to bottom, while everything else goes on writing.

1. Garbage collection is held off (``keep.py``): what the rows name now stays until the backup is done.
2. All rows are read in one transaction for the records and one for the series (watermarks and messages agree), into an
   unnamed file in the workspace's ``work`` folder. A long read transaction makes SQLite's write-ahead log grow, so it must not
   last as long as a client takes to fetch: reading to a local file is fast.
3. The archive is streamed: header, keys if asked for, the file with the rows, each blob, the end with a digest of it all.
   Blobs never change, so they need no snapshot. One that is missing or damaged is named in the end, never left out in silence.

Memory stays at a few MB whatever the size; nothing is left behind by a backup that is cut off or killed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from sqlalchemy import Connection, collate, select

import hedgerow
from hedgerow.contracts.backup import BACKUP_FORMAT, BackupEnd, BackupHeader, LostBlob
from hedgerow.contracts.backup_archive import CHUNK_BYTES, END_NAME, HEADER_NAME, NO_DIGEST, blob_name, member_header, signed_off
from hedgerow.contracts.document import encode
from hedgerow.errors import NotFoundError
from hedgerow.tar_headers import END_OF_TAR, padding
from registry.backup.errors import KeysChanging
from registry.backup.keep import BlobKeeper
from registry.backup.rows import dump
from registry.blobs import BlobStore
from registry.blobs.errors import BlobDamaged
from registry.store import facts
from registry.store.blobs import CONDEMNED
from registry.store.database import Database
from registry.store.schema import RECORDS_PART, SERIES_PART, Part, stored_revision
from registry.store.tables import blobs
from registry.workspace import Workspace

_KEY_TRIES = 5


@dataclass(frozen=True)
class Source:
    """What is backed up."""

    workspace: Workspace
    database: Database
    blobs: BlobStore


@dataclass(frozen=True)
class Wanted:
    """What goes into the archive besides the rows."""

    blobs: bool = True
    keys: bool = False


@dataclass(frozen=True)
class Snapshot:
    """Everything as it was at one moment, but for the blobs' content. ``rows`` holds finished members of the archive."""

    header: BackupHeader
    keys: dict[str, bytes]
    rows: BinaryIO
    row_counts: dict[str, int]
    digests: BinaryIO


class Backup:
    """A backup whose rows are read. Take :meth:`chunks` once, then :meth:`close`, whatever happened."""

    def __init__(self, source: Source, wanted: Wanted, keeper: BlobKeeper, now: datetime) -> None:
        """Raises BlobsBusy, KeysChanging, DatabaseUnavailable, OSError (full disk)."""
        self._source, self._keeper = source, keeper
        self._lost: list[LostBlob] = []
        self._blobs = self._blob_bytes = 0
        with ExitStack() as undo:
            keeper.begin()
            undo.callback(keeper.end)
            files = [undo.enter_context(tempfile.TemporaryFile(dir=source.workspace.work)) for _ in range(2)]
            self._snapshot = _take_snapshot(source, wanted, now, files[0], files[1], keeper.renew)
            self._undo = undo.pop_all()

    @property
    def header(self) -> BackupHeader:
        return self._snapshot.header

    def close(self) -> None:
        """Drop the spooled rows and let go of the blobs; again does nothing."""
        self._undo.close()

    def chunks(self, tell: Callable[[BackupEnd], None]) -> Iterator[bytes]:
        """The archive. ``tell`` is called when all but its end was handed out. Raises LeaseLost, StorageUnavailable, OSError."""
        sha = hashlib.sha256()
        for chunk in self._all_but_end():
            sha.update(chunk)
            yield chunk
            self._keeper.renew()
        end = BackupEnd(
            rows=self._snapshot.row_counts,
            blobs=self._blobs,
            blob_bytes=self._blob_bytes,
            digest=NO_DIGEST,
            lost=self._lost,
        )
        tell(end)
        yield _member(END_NAME, encode(signed_off(end, sha))) + END_OF_TAR

    def _all_but_end(self) -> Iterator[bytes]:
        yield _member(HEADER_NAME, encode(self.header))
        for name, content in self._snapshot.keys.items():
            yield _member(f"keys/{name}", content)
        self._snapshot.rows.seek(0)
        while chunk := self._snapshot.rows.read(CHUNK_BYTES):
            yield chunk
        self._snapshot.digests.seek(0)
        for line in self._snapshot.digests:
            digest, size = line.decode().split()
            yield from self._blob(digest, int(size))

    def _blob(self, digest: str, size: int) -> Iterator[bytes]:
        """The member of one blob; one that turns out damaged on the way is filled up, for its size was already said."""
        try:
            if (found := self._source.blobs.size(digest)) != size:
                self._lost.append(LostBlob(digest=digest, problem=f"it has {found} bytes instead of {size}"))
                return
            stream = self._source.blobs.open(digest)
        except NotFoundError:
            self._lost.append(LostBlob(digest=digest, problem="it is missing"))
            return
        left = size
        with stream:
            yield member_header(blob_name(digest), size)
            try:
                while left and (chunk := stream.read(min(left, CHUNK_BYTES))):
                    left -= len(chunk)
                    yield chunk
                stream.read(1)  # an empty blob is checked by its end
            except BlobDamaged:
                self._lost.append(LostBlob(digest=digest, problem="its content is damaged"))
            else:
                self._blobs, self._blob_bytes = self._blobs + 1, self._blob_bytes + size
        while left:
            yield bytes(part := min(left, CHUNK_BYTES))
            left -= part
        yield padding(size)


# --- the snapshot --------------------------------------------------------------------------------------------------------


def _take_snapshot(
    source: Source, wanted: Wanted, now: datetime, rows: BinaryIO, digests: BinaryIO, renew: Callable[[], None]
) -> Snapshot:
    for _ in range(_KEY_TRIES):
        keys, spool = _read_keys(source.workspace, wanted), _Spool(rows, digests, renew)
        header = _read_rows(source, wanted, now, spool)
        # Keys of another moment than the rows could not open what is sealed in them.
        if keys == _read_keys(source.workspace, wanted):
            return Snapshot(header, keys, rows, spool.counts, digests)
        for file in (rows, digests):
            file.seek(0)
            file.truncate()
    raise KeysChanging


class _Spool:
    """Rows on their way into the two files."""

    def __init__(self, rows: BinaryIO, digests: BinaryIO, renew: Callable[[], None]) -> None:
        self.rows, self.digests, self.renew = rows, digests, renew
        self.counts: dict[str, int] = {}
        self.blob_bytes = 0


def _read_rows(source: Source, wanted: Wanted, now: datetime, spool: _Spool) -> BackupHeader:
    revisions: dict[str, str] = {}
    with source.database.read() as connection:
        _dump_part(connection, RECORDS_PART, spool, revisions)
        incarnation = facts.incarnation(connection)
        if wanted.blobs:
            _note_digests(connection, spool)
    with source.database.read_series() as connection:
        _dump_part(connection, SERIES_PART, spool, revisions)
    return BackupHeader(
        format=BACKUP_FORMAT,
        workspace_id=source.workspace.id,
        incarnation=incarnation,
        hedgerow_version=hedgerow.__version__,
        revisions=revisions,
        has_keys=wanted.keys,
        has_blobs=wanted.blobs,
        created_at=now,
        keyid=source.workspace.trusted_key.keyid,
        size_bytes=spool.rows.tell() + spool.blob_bytes,
    )


def _dump_part(connection: Connection, part: Part, spool: _Spool, revisions: dict[str, str]) -> None:
    """Tables in the order in which they can be put back: what is referred to comes first."""
    revisions[part.name] = stored_revision(connection, part) or ""
    for table in part.metadata.sorted_tables:
        counted = 0
        for number, (packed, rows) in enumerate(dump(connection, table), start=1):
            spool.rows.write(_member(f"{part.name}/{table.name}.{number:06}.jsonl.gz", packed))
            spool.renew()
            counted += rows
        spool.counts[f"{part.name}/{table.name}"] = counted


def _note_digests(connection: Connection, spool: _Spool) -> None:
    digest = blobs.c.digest if connection.dialect.name == "sqlite" else collate(blobs.c.digest, "C")
    # What garbage collection was about to delete is no promise.
    promised = blobs.c.leased_until != CONDEMNED
    query = select(blobs.c.digest, blobs.c.size_bytes).where(promised).order_by(digest)
    for row in connection.execution_options(yield_per=1000).execute(query):
        spool.digests.write(f"{row.digest} {row.size_bytes}\n".encode())
        spool.blob_bytes += row.size_bytes


def _read_keys(workspace: Workspace, wanted: Wanted) -> dict[str, bytes]:
    if not wanted.keys:
        return {}
    return {path.name: path.read_bytes() for path in sorted(workspace.keys.iterdir()) if not path.name.startswith(".")}


def _member(name: str, content: bytes) -> bytes:
    return member_header(name, len(content)) + content + padding(len(content))
