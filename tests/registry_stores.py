"""Workspaces with a database for store tests, on SQLite and on PostgreSQL, and a few records to put into them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from hedgerow.contracts.api import RegisterModel
from hedgerow.contracts.image import ImageRecord, ModelRef, PlatformImage
from hedgerow.contracts.model import FileEntry, ModelManifest
from hedgerow.contracts.names import MEDIA_OCI_MANIFEST
from registry.store import blobs, facts, images, models, schema
from registry.store.database import Database, open_database
from registry.workspace import Workspace, open_workspace

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
BACKENDS = ("sqlite", "postgresql")


@contextmanager
def ready_database(folder: Path, url: str | None) -> Iterator[Database]:
    """A workspace's database, migrated, closed at the end."""
    workspace = open_workspace(folder)
    database = open_database(url, workspace.folder)
    try:
        bring_up(database, workspace)
        yield database
    finally:
        database.close()


def lay_out_tables(url: str) -> None:
    """Today's tables in an empty PostgreSQL database, as yet of no workspace: something to copy."""
    database = open_database(url, Path())
    try:
        for part in (schema.RECORDS_PART, schema.SERIES_PART):
            with database.write() as connection:
                schema.lay_out(connection, part, part.head, Path())
    finally:
        database.close()


def bring_up(database: Database, workspace: Workspace) -> None:
    """``schema.upgrade``, which by itself refuses a copy of laid-out tables: it has a schema but no owner yet."""
    if database.records.dialect.name == "postgresql":
        with database.write() as connection:
            if schema.stored_revision(connection, schema.RECORDS_PART) is not None:
                facts.initialise(connection, workspace.id)
    schema.upgrade(database, workspace)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def digest_of_text(text: str) -> str:
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def known_file(connection: Connection, path: str, content: str) -> FileEntry:
    """A file entry whose blob the records know."""
    digest = digest_of_text(content)
    blobs.record(connection, digest, len(content.encode()), NOW)
    return FileEntry(path=path, digest=digest, size_bytes=len(content.encode()))


def add_model(connection: Connection, name: str = "shuttle", *, now: datetime = NOW, **facts: Any) -> ModelManifest:
    files = [known_file(connection, "model.onnx", f"weights of {name}")]
    return models.register(connection, RegisterModel(name=name, files=files, **facts), now)


def add_image(
    connection: Connection,
    name: str = "shuttle-image",
    *of: ModelManifest,
    manifest: str = "{}",
    now: datetime = NOW,
    environment: str | None = None,
) -> ImageRecord:
    """An image of the given models whose manifest blob is ``manifest`` and whose only layer holds its name."""
    version = images.next_version(connection, name)
    parts = [(digest_of_text(manifest), MEDIA_OCI_MANIFEST), (digest_of_text(f"layer of {name}"), "application/octet-stream")]
    for digest, _ in parts:
        blobs.record(connection, digest, 2, now)
    record = ImageRecord(
        name=name,
        version=version,
        kind="onnx",
        digest=parts[0][0],
        media_type=MEDIA_OCI_MANIFEST,
        size_bytes=2,
        platforms=[PlatformImage(platform="any", digest=parts[0][0], size_bytes=2)],
        models=[ModelRef(name=model.name, version=model.version, digest=model.digest) for model in of],
        environment=environment,
        tool_version="test",
        created_at=now,
    )
    images.insert(connection, record, parts)
    return record
