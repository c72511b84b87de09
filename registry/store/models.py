"""Model versions: registered whole or not at all, found by reference, deleted only when nothing uses them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, cast, delete, exists, func, select

from hedgerow.contracts.api import RegisterModel
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.model import FileEntry, ModelManifest, digest_of_files
from hedgerow.contracts.names import Reference, check_name
from registry.errors import FilesCollide, InUse, RecordNotFound
from registry.store import blobs
from registry.store.keyset import page_of, split_page
from registry.store.tables import image_models, model_files, model_names, model_versions, runs
from registry.store.time_text import to_text
from registry.store.versions import next_version


def register(connection: Connection, request: RegisterModel, now: datetime) -> ModelManifest:
    """Make the next version of ``request.name``. Visible with the commit of the transaction, never before.

    Raises BlobMissing, BlobSizeWrong, FilesCollide, RecordNotFound (the run).
    """
    check_paths(request.files)
    blobs.require(connection, request.files)
    if request.run_id is not None and connection.execute(select(runs.c.id).where(runs.c.id == request.run_id)).first() is None:
        raise RecordNotFound(kind="run", name=request.run_id, command="run")
    files = sorted(request.files, key=lambda entry: entry.path)
    facts = {field: getattr(request, field) for field in request.__struct_fields__ if field not in ("name", "files")}
    manifest = ModelManifest(
        name=request.name,
        version=next_version(connection, model_names, request.name),
        digest=digest_of_files(files),
        files=files,
        created_at=now,
        **facts,
    )
    _insert(connection, manifest)
    return manifest


def check_paths(files: Iterable[FileEntry]) -> None:
    """Raises FilesCollide when two files want one place, or one a folder's (``a`` beside ``a/b``)."""
    paths = [entry.path for entry in files]
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise FilesCollide(path=path)
        seen.add(path)
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if (parent := "/".join(parts[:depth])) in seen:
                raise FilesCollide(path=parent)


def get(connection: Connection, reference: Reference) -> ModelManifest:
    """The version that ``reference`` names, the newest one if it names none. Raises RecordNotFound."""
    query = select(model_versions.c.manifest).where(model_versions.c.name == reference.name)
    if reference.version is not None:
        query = query.where(model_versions.c.version == reference.version)
    if reference.digest is not None:
        query = query.where(model_versions.c.digest == reference.digest)
    row = connection.execute(query.order_by(model_versions.c.version.desc()).limit(1)).one_or_none()
    if row is None:
        raise RecordNotFound(kind="model", name=reference, command="model")
    return decode(row.manifest, ModelManifest)


def newest(
    connection: Connection,
    limit: int,
    after: str | None = None,
    *,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> tuple[list[ModelManifest], str | None]:
    """Newest first, with the ``after`` of the following page (None at the end). All of ``tags`` must match."""
    query = select(model_versions)
    if name is not None:
        query = query.where(model_versions.c.name == check_name(name, "model"))
    for key, value in (tags or {}).items():
        query = query.where(_has_tag(connection, key, value))
    rows = connection.execute(page_of(query, model_versions, limit, after)).all()
    page, following = split_page(list(rows), limit)
    return [decode(row.manifest, ModelManifest) for row in page], following


def delete_version(connection: Connection, reference: Reference) -> ModelManifest:
    """Take one version away for ever; its number is never used again. Raises RecordNotFound, InUse."""
    manifest = get(connection, reference)
    users = connection.execute(
        select(image_models.c.image_name, image_models.c.image_version)
        .where(image_models.c.model_name == manifest.name, image_models.c.model_version == manifest.version)
        .order_by(image_models.c.image_name, image_models.c.image_version)
    ).all()
    if users:
        named = ", ".join(f"image {user.image_name}:{user.image_version}" for user in users)
        raise InUse(kind="Model", name=f"{manifest.name}:{manifest.version}", users=named)
    connection.execute(
        delete(model_versions).where(model_versions.c.name == manifest.name, model_versions.c.version == manifest.version)
    )
    return manifest


def images_of(connection: Connection, name: str, version: int) -> list[tuple[str, int]]:
    """The images (name, version) that this model version is part of."""
    rows = connection.execute(
        select(image_models.c.image_name, image_models.c.image_version)
        .where(image_models.c.model_name == name, image_models.c.model_version == version)
        .order_by(image_models.c.image_name, image_models.c.image_version)
    )
    return [(row.image_name, row.image_version) for row in rows]


def _insert(connection: Connection, manifest: ModelManifest) -> None:
    key = {"name": manifest.name, "version": manifest.version}
    connection.execute(
        model_versions.insert().values(
            **key,
            digest=manifest.digest,
            framework=manifest.framework,
            run_id=manifest.run_id,
            manifest=encode(manifest).decode(),
            created_at=to_text(manifest.created_at),
        )
    )
    connection.execute(model_files.insert(), [{**key, "path": entry.path, "digest": entry.digest} for entry in manifest.files])


def _has_tag(connection: Connection, key: str, value: str) -> ColumnElement[bool]:
    """Tags lie in the manifest's JSON text; both databases can open it."""
    if connection.dialect.name == "sqlite":
        pairs = func.json_each(model_versions.c.manifest, "$.tags").table_valued("key", "value")
    else:
        from sqlalchemy.dialects.postgresql import JSONB

        pairs = func.jsonb_each_text(cast(model_versions.c.manifest, JSONB)["tags"]).table_valued("key", "value")
    return exists(select(1).select_from(pairs).where(pairs.c.key == key, pairs.c.value == value))
