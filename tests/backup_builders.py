"""Workspaces to back up, backups of them without a server, and what to compare afterwards."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Table, select

from hedgerow.clock import SystemClock
from hedgerow.contracts.api import RegisterModel
from hedgerow.contracts.backup import BackupEnd, RestoreReport
from hedgerow.contracts.model import FileEntry, ModelManifest
from registry.backup.keep import BlobKeeper
from registry.backup.restore import Order, restore
from registry.backup.write import Backup, Source, Wanted
from registry.blobs import BlobStore, FolderStore
from registry.store import blobs, models, schema
from registry.store.database import Database, open_database
from registry.store.tables import RECORDS, SERIES
from registry.workspace import Workspace, open_workspace
from tests.registry_stores import NOW


@dataclass(frozen=True)
class Place:
    """A workspace without processes."""

    workspace: Workspace
    database: Database
    store: BlobStore

    @property
    def source(self) -> Source:
        return Source(self.workspace, self.database, self.store)

    def put(self, content: bytes, path: str = "model.onnx") -> FileEntry:
        """Store and record content."""
        with self.store.stage(io.BytesIO(content)) as staged:
            with self.database.write() as connection:
                blobs.record_staged(connection, staged, NOW)
            return FileEntry(path=path, digest=staged.digest, size_bytes=staged.size_bytes)

    def register(self, name: str, *files: FileEntry) -> ModelManifest:
        with self.database.write() as connection:
            return models.register(connection, RegisterModel(name=name, files=list(files)), NOW)

    def rows(self, *but: str) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table but those named, in order of the primary key."""
        found = {}
        for metadata, reading in ((RECORDS, self.database.read), (SERIES, self.database.read_series)):
            with reading() as connection:
                for table in metadata.sorted_tables:
                    if table.name not in but:
                        found[table.name] = [dict(row._mapping) for row in connection.execute(_ordered(table))]
        return found


def _ordered(table: Table) -> Any:
    return select(table).order_by(*table.primary_key.columns)


@contextmanager
def place(folder: Path, url: str | None = None) -> Iterator[Place]:
    """A workspace in ``folder``, made when it is not there."""
    workspace = open_workspace(folder)
    database = open_database(url, workspace.folder)
    try:
        schema.upgrade(database, workspace)
        yield Place(workspace, database, FolderStore(workspace.blobs))
    finally:
        database.close()


def back_up(of: Place, file: Path, wanted: Wanted | None = None) -> BackupEnd:
    """Write a backup of ``of`` to ``file``."""
    ends: list[BackupEnd] = []
    backup = Backup(of.source, wanted or Wanted(keys=True), BlobKeeper(of.database, SystemClock()), NOW)
    try:
        with file.open("wb") as target:
            for chunk in backup.chunks(ends.append):
                target.write(chunk)
    finally:
        backup.close()
    return ends[0]


def bring_back(file: Path, target: Path, **more: Any) -> RestoreReport:
    return restore(Order(file=file, target=target, **more), NOW)
