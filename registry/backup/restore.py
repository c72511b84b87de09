"""A restore, from top to bottom: offline, into nothing, whole or not at all.

1. The workspace is built in a hidden folder beside its target (``place.py``) and an empty database.
2. The archive is read once, front to back, and checked on the way: rows go into a schema of the revision that they were
   written with, all in one transaction, foreign keys checked as they come (what is referred to comes first); each blob is
   hashed and must be one that a row names.
3. At the archive's end everything must have been there. The schema is brought up to date, and what must not come back as it
   was (``afterwards.py``) is changed: the incarnation tells devices that what they sent may be missing.
4. Commit, then one rename. A restore that is killed leaves a hidden folder that the next one clears; with PostgreSQL, where
   commit and rename are two moments, the next one finds the commit made and does the rename.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection, MetaData, Table, func, inspect, select
from sqlalchemy.exc import DBAPIError

from hedgerow.contracts.backup import BackupEnd, BackupHeader, LostBlob, RestoreReport
from hedgerow.contracts.backup_archive import BackupDamaged, BackupTooNew, Member, read_header, read_members
from registry.backup import afterwards
from registry.backup.errors import BlobsLost, KeysNeeded, RestoreFailed, TargetNotEmpty
from registry.backup.keys import keys_from, take_identity
from registry.backup.place import BuildingPlace, building_place
from registry.backup.rows import Loader
from registry.blobs import BlobStore, ChunkHashes
from registry.blobs.choose import open_store
from registry.blobs.errors import BlobDamaged, BlobUnknown, DigestMismatch
from registry.store import blobs as blob_rows
from registry.store import events, facts, schema
from registry.store.database import Database, open_database
from registry.store.schema import RECORDS_PART, SERIES_PART, Part
from registry.store.tables import blobs
from registry.workspace import open_workspace

_PARTS = {part.name: part for part in (RECORDS_PART, SERIES_PART)}


@dataclass(frozen=True)
class Order:
    """What to restore, and where to.

    ``database_url`` None means SQLite files in the folder, ``blobs_url`` None the folder's own. ``keys`` is a keys folder or a
    backup with keys; with ``new_identity`` neither those nor the backup's are used. ``accept_lost``: content that the
    backup lacks is named in the report instead of refused.
    """

    file: Path
    target: Path
    database_url: str | None = None
    blobs_url: str | None = None
    blobs_endpoint: str | None = None
    keys: Path | None = None
    new_identity: bool = False
    revoke_tokens: bool = False
    accept_lost: bool = False


def restore(order: Order, now: datetime) -> RestoreReport:
    """Do it. Nothing is left behind when it raises.

    Raises BackupDamaged, BackupTooNew, TargetNotEmpty, TargetIsMount, RestoreUnderWay, KeysNeeded, KeysUnusable, BlobsLost,
    RestoreFailed, DatabaseUnavailable, StorageUnavailable, InvalidSetting (the URL).
    """
    with _trouble_said(), order.file.open("rb") as file, building_place(order.target) as place:
        if order.database_url is not None and (report := _done_before(place, order.database_url)):
            place.is_committed = True
            _check_same(order, file, report)
        else:
            place.clear()
            report = _build(order, file, place, now)
        place.publish()
        return report


def _build(order: Order, file: BinaryIO, place: BuildingPlace, now: datetime) -> RestoreReport:
    if order.new_identity:
        open_workspace(place.folder)  # makes keys, like any new workspace
    database = open_database(order.database_url, place.folder)
    try:
        with _refused_rows(order.file), database.write() as records, _series(database, records) as series:
            _check_empty(records, order.database_url)
            store = open_store(place.folder / "blobs", order.blobs_url, order.blobs_endpoint)
            building = _Building(order, place, store, records, series, now)
            report = building.read(file)
            place.note_done(report)
        place.is_committed = order.database_url is not None
        return report
    finally:
        database.close()


@dataclass
class _Building:
    """One restore on its way."""

    order: Order
    place: BuildingPlace
    store: BlobStore
    records: Connection
    series: Connection
    now: datetime
    tables: dict[str, Table] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    chunks: dict[str, ChunkHashes] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    stored: int = 0
    stored_bytes: int = 0

    def read(self, file: BinaryIO) -> RestoreReport:
        name = str(self.order.file)
        header: BackupHeader | None = None
        for member in read_members(file, name):
            if isinstance(member, BackupEnd):
                break
            if member.kind == "header":
                header = self._begin(read_header(member, name))
            elif member.kind == "key":
                self.keys[member.name.removeprefix("keys/")] = member.read()
            elif member.kind == "blob":
                self._take_blob(member)
            else:
                self._take_rows(member)
        if header is None or not isinstance(member, BackupEnd):
            raise self._damaged("it has no beginning or no end")
        return self._finish(header, member)

    def _begin(self, header: BackupHeader) -> BackupHeader:
        """Refuse at once what cannot end well, and make the tables."""
        if not (self.order.new_identity or self.order.keys or header.has_keys):
            raise KeysNeeded(file=self.order.file)
        if self.order.keys and not self.order.new_identity:
            self.keys = keys_from(self.order.keys)
        for part in _PARTS.values():
            revision = header.revisions.get(part.name, "")
            if not schema.knows(part, revision):
                problem = f"its {part.name} are of revision {revision[:40]}, this one knows up to {part.head}"
                raise BackupTooNew(file=self.order.file, version=header.hedgerow_version, problem=problem)
            connection = self._connection(part)
            before = set(inspect(connection).get_table_names())
            schema.lay_out(connection, part, revision, self.place.folder)
            made = set(inspect(connection).get_table_names()) - before - {part.version_table}
            found = MetaData()
            found.reflect(connection, only=sorted(made))
            self.tables |= {f"{part.name}/{table.name}": table for table in found.tables.values()}
        return header

    def _take_rows(self, member: Member) -> None:
        name = member.name.partition(".")[0]
        if name not in self.tables:
            raise self._damaged(f"it has rows for {name}, a table that its revision does not have")
        loader = Loader(self._connection(_PARTS[member.kind]), self.tables[name], str(self.order.file))
        self.rows[name] = self.rows.get(name, 0) + loader.load(member)

    def _take_blob(self, member: Member) -> None:
        digest = f"sha256:{member.name.rpartition('/')[2]}"
        size = self.records.execute(select(blobs.c.size_bytes).where(blobs.c.digest == digest)).scalar_one_or_none()
        if size != member.size:
            raise self._damaged(f"no record names a blob {digest} of {member.size} bytes")
        try:
            with self.store.stage(member, digest) as staged:
                if staged.chunks is not None:
                    self.chunks[digest] = staged.chunks
        except DigestMismatch:
            self.wrong.add(digest)  # fine only if the end says so
        else:
            self.stored, self.stored_bytes = self.stored + 1, self.stored_bytes + member.size

    def _finish(self, header: BackupHeader, end: BackupEnd) -> RestoreReport:
        """Everything was read: was it everything?"""
        if {name: count for name, count in end.rows.items() if count} != self.rows:
            raise self._damaged("it does not hold the rows that its end counts")
        if (end.blobs, end.blob_bytes) != (self.stored, self.stored_bytes) or self.wrong - {lost.digest for lost in end.lost}:
            raise self._damaged("it does not hold the blobs that its end counts")
        where = str(self.order.keys or self.order.file)
        take_identity(self.place.folder, header, None if self.order.new_identity else self.keys, where)
        if facts.value(self.records, facts.WORKSPACE_ID) != header.workspace_id:
            raise self._damaged("its rows are of another workspace than its beginning says")
        for part in _PARTS.values():
            if header.revisions[part.name] != part.head:
                schema.migrate(self._connection(part), part, self.place.folder)
            afterwards.move_sequences(self._connection(part), part)
        afterwards.drop_condemned(self.records)
        lost = self._lost(header, end)
        self._keep_chunks()
        return self._new_life(header, end, lost)

    def _keep_chunks(self) -> None:
        """What proves parts of a blob must fit the content; older backups have none of it."""
        for digest, chunks in self.chunks.items():
            kept = blob_rows.chunks_of(self.records, digest)
            if kept is None:
                blob_rows.keep_chunks(self.records, digest, chunks)
            elif kept.chunk_bytes == chunks.chunk_bytes and kept.hashes != chunks.hashes:
                raise self._damaged(f"the chunk hashes of {digest} are not those of its content")

    def _new_life(self, header: BackupHeader, end: BackupEnd, lost: list[LostBlob]) -> RestoreReport:
        incarnation, interrupted = afterwards.begin_new_life(self.records, self.now)
        if self.order.new_identity:
            afterwards.forget_signatures(self.records)
        report = RestoreReport(
            workspace_id=header.workspace_id,
            incarnation=incarnation,
            rows=end.rows,
            blobs=end.blobs,
            blob_bytes=end.blob_bytes,
            keys_restored=not self.order.new_identity,
            tokens_revoked=afterwards.revoke_tokens(self.records, self.now) if self.order.revoke_tokens else 0,
            interrupted=interrupted,
            lost=lost,
        )
        details = {"backup_of": header.created_at.isoformat(), "incarnation": incarnation, "interrupted": str(interrupted)}
        subject, actor = f"workspace/{header.workspace_id}", events.system("restore")
        events.record(self.records, kind="workspace.restored", subject=subject, actor=actor, now=self.now, details=details)
        return report

    def _lost(self, header: BackupHeader, end: BackupEnd) -> list[LostBlob]:
        """Content that rows promise and nobody has. Raises BlobsLost unless that is accepted, BackupDamaged."""
        lost = end.lost
        if not header.has_blobs:
            lost = list(self._not_there())
        else:
            known = self.records.execute(select(func.count()).select_from(blobs)).scalar_one()
            if known != self.stored + len(lost) or any(self.store.has(blob.digest) for blob in lost):
                raise self._damaged("it lacks blobs, and its end does not say so")
        if lost and not self.order.accept_lost:
            advice = "Say --accept-lost to restore the rest, and upload that content again."
            if not header.has_blobs:
                advice = f"It was made without blobs: give the place where they are with --blobs URL. {advice}"
            first = lost[0]
            raise BlobsLost(file=self.order.file, count=len(lost), digest=first.digest, problem=first.problem, advice=advice)
        return lost

    def _not_there(self) -> Iterator[LostBlob]:
        for row in self.records.execute(select(blobs.c.digest, blobs.c.size_bytes).order_by(blobs.c.digest)):
            try:
                found = self.store.size(row.digest)
            except BlobUnknown:
                yield LostBlob(digest=row.digest, problem="it is not there")
            else:
                if found != row.size_bytes:
                    yield LostBlob(digest=row.digest, problem=f"it has {found} bytes instead of {row.size_bytes}")

    def _connection(self, part: Part) -> Connection:
        return self.records if part is RECORDS_PART else self.series

    def _damaged(self, problem: str) -> BackupDamaged:
        return BackupDamaged(file=self.order.file, problem=problem)


# --- below ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _series(database: Database, records: Connection) -> Iterator[Connection]:
    """On PostgreSQL both parts are one transaction; on SQLite two files, of a folder that is put in place as a whole."""
    if database.series is database.records:
        yield records
    else:
        with database.write_series() as series:
            yield series


def _check_empty(connection: Connection, url: str | None) -> None:
    if url is not None and (found := inspect(connection).get_table_names()):
        raise TargetNotEmpty(where="The database", found=f"it has tables: {', '.join(sorted(found)[:3])}")


def _done_before(place: BuildingPlace, url: str) -> RestoreReport | None:
    """The report of a restore that was killed between its commit and its rename."""
    report = place.left_done()
    if report is None:
        return None
    database = open_database(url, place.folder)
    try:
        with database.read() as connection:
            if not inspect(connection).has_table("facts") or facts.incarnation(connection) != report.incarnation:
                return None
        return report
    finally:
        database.close()


def _check_same(order: Order, file: BinaryIO, report: RestoreReport) -> None:
    """What was restored before may not pass for what is asked for now."""
    first = next(read_members(file, str(order.file)))
    if isinstance(first, BackupEnd) or read_header(first, str(order.file)).workspace_id != report.workspace_id:
        raise TargetNotEmpty(where="The database", found=f"workspace {report.workspace_id} was restored into it before")


@contextmanager
def _refused_rows(file: Path) -> Iterator[None]:
    """Rows that contradict each other or the schema; a full disk is said by the database's own errors."""
    try:
        yield
    except DBAPIError as problem:
        words = " ".join(str(problem.orig).split())[:300]
        raise BackupDamaged(file=file, problem=f"its rows do not fit together ({words})") from problem
    except OverflowError as problem:  # a row counts as far as the database can, and what comes now is one more
        raise BackupDamaged(file=file, problem=f"its rows leave no room for more ({problem})") from problem


@contextmanager
def _trouble_said() -> Iterator[None]:
    try:
        yield
    except BlobDamaged as problem:
        raise RestoreFailed(problem=str(problem)) from problem
    except OSError as problem:
        where = f" ({problem.filename})" if problem.filename else ""
        raise RestoreFailed(problem=f"{problem.strerror or problem}{where}") from problem
