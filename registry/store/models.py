"""Model versions: registered whole or not at all, found by reference, changed in what may change.

Beside this story: :mod:`registry.store.model_search` finds many, :mod:`registry.store.model_aliases` moves names for single
versions, :mod:`registry.store.model_deletion` takes versions away.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, bindparam, select, update

from hedgerow.contracts.api import ChangeModel, RegisterModel
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.events import Actor
from hedgerow.contracts.model import AskedEnvironment, FileEntry, MlflowFacts, ModelManifest, digest_of_files
from hedgerow.contracts.names import Reference
from registry.errors import FilesCollide, PropertyFixed, RecordNotFound, RegistrationRefused, TooManyLabels
from registry.store import blobs, model_aliases, model_search, model_words
from registry.store.deletion import told_by_tombstone
from registry.store.model_search import Label, ModelQuery
from registry.store.prepared import Prepared
from registry.store.tables import model_data, model_files, model_names, model_samples, model_versions, runs
from registry.store.time_text import to_text
from registry.store.versions import next_version

MOST_LABELS = 500
_INSERT_VERSION = Prepared(
    lambda _: model_versions.insert(),
    columns=("name", "version", "digest", "framework", "run_id", "source_commit", "manifest", "created_at"),
)
_INSERT_FILES = Prepared(lambda _: model_files.insert(), columns=("name", "version", "path", "digest"))
# What the request and the manifest call by the same name.
_TAKEN_OVER = (
    "framework",
    "framework_version",
    "description",
    "tags",
    "properties",
    "inputs",
    "outputs",
    "sample_input",
    "run_id",
    "source",
    "data",
)

# A manifest in which nothing is left out. Its parts are not looked into: who adds a field to one of them rewrites what is stored.
_STORED: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct(
        "StoredManifest",
        [(name, int if name == "revision" else msgspec.Raw) for name in ModelManifest.__struct_fields__],
    )
)


def register(
    connection: Connection,
    request: RegisterModel,
    now: datetime,
    *,
    actor: Actor | None = None,
    mlflow: MlflowFacts | None = None,
    environment: AskedEnvironment | None = None,
) -> ModelManifest:
    """Make the next version of ``request.name``. Visible with the commit of the transaction, never before.

    ``actor`` is who asks (None: the control plane, which may move protected aliases). Raises BlobMissing, BlobSizeWrong,
    FilesCollide, RegistrationRefused, TooManyLabels, RecordNotFound (the run), AliasReserved, AliasProtected.
    """
    _check(request)
    sample = [request.sample_input] if request.sample_input else []
    blobs.require(connection, [*request.files, *sample])
    if request.run_id is not None and connection.execute(select(runs.c.id).where(runs.c.id == request.run_id)).first() is None:
        raise RecordNotFound(kind="run", name=request.run_id[:200], command="run")
    version = next_version(connection, model_names, request.name)
    manifest = manifest_of(request, version, now, mlflow=mlflow, environment=environment)
    _insert(connection, manifest)
    aliases = sorted(set(request.aliases))
    for alias in aliases:
        model_aliases.point(connection, manifest.name, alias, manifest.version, now, actor=actor, unseen=True)
    return msgspec.structs.replace(manifest, aliases=aliases)


def manifest_of(
    request: RegisterModel,
    version: int,
    now: datetime,
    *,
    mlflow: MlflowFacts | None = None,
    environment: AskedEnvironment | None = None,
) -> ModelManifest:
    """What ``request`` makes, as it is stored: without aliases."""
    files = sorted(request.files, key=lambda entry: entry.path)
    facts = {field: getattr(request, field) for field in _TAKEN_OVER}
    return ModelManifest(
        name=request.name,
        version=version,
        digest=digest_of_files(files),
        files=files,
        mlflow=mlflow,
        environment=environment,
        created_at=now,
        **facts,
    )


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
    """The version that ``reference`` names, the newest one if it names none. Raises RecordNotFound, RecordDeleted."""
    return _manifest(_find(connection, reference))


def hold(connection: Connection, reference: Reference) -> ModelManifest:
    """Like :func:`get`; until the end of a writing transaction nobody deletes it. Raises RecordNotFound, RecordDeleted.

    For whoever writes down that it needs the version: of a deletion at once, the one that comes second sees the other.
    """
    while True:
        found = get(connection, reference)
        here = is_version(found.name, found.version) & model_versions.c.deleted_at.is_(None)
        if connection.execute(select(model_versions.c.name).where(here).with_for_update(read=True)).first() is not None:
            return found
        # Deleted between the two looks: "the newest" may be another one now, a version is gone.


def lock(connection: Connection, reference: Reference) -> ModelManifest:
    """Like :func:`get`, for whoever changes or deletes it: others wait until this transaction ends.

    The name is locked before the version, as everywhere. Raises RecordNotFound, RecordDeleted.
    """
    lock_name(connection, reference.name)
    return get(connection, reference)


def lock_name(connection: Connection, name: str) -> None:
    """Until the end of the transaction nobody registers, changes or deletes a version of ``name``, or moves its aliases."""
    connection.execute(select(model_names.c.name).where(model_names.c.name == name).with_for_update())


def change(connection: Connection, held: ModelManifest, wanted: ChangeModel) -> ModelManifest:
    """Set and take away tags, add properties, replace the description; ``held`` was read with :func:`lock`.

    What is as asked already changes nothing, not even the revision. Raises PropertyFixed, TooManyLabels.
    """
    name = f"{held.name}:{held.version}"
    for key, value in wanted.properties.items():
        if held.properties.get(key, value) != value:
            raise PropertyFixed(property=key, name=name, found=held.properties[key][:200])
    tags = {key: value for key, value in (held.tags | wanted.tags).items() if value is not None}
    properties = held.properties | wanted.properties
    description = held.description if wanted.description is None else wanted.description
    if (tags, properties, description) == (held.tags, held.properties, held.description):
        return held
    _check_labels(name, tags, properties)
    revision = held.revision + 1
    changed = msgspec.structs.replace(
        held, tags=tags, properties=properties, description=description, revision=revision, aliases=[]
    )
    values = {"manifest": encode(changed).decode(), "revision": revision}
    connection.execute(update(model_versions).where(is_version(held.name, held.version)).values(**values))
    model_words.delete(connection, held.name, held.version)
    model_words.insert(connection, changed)
    return msgspec.structs.replace(changed, aliases=held.aliases)


def find(
    connection: Connection, query: ModelQuery, limit: int, after: str | None = None
) -> tuple[list[ModelManifest], str | None]:
    """Versions that fit, newest first, with the ``after`` of the following page (None at the end).

    Raises InvalidName, InvalidPage.
    """
    rows, following = model_search.search(connection, query, limit, after)
    return [_manifest(row) for row in rows], following


def find_documents(
    connection: Connection, query: ModelQuery, limit: int, after: str | None = None
) -> tuple[list[msgspec.Raw], str | None]:
    """:func:`find`, for whoever passes the manifests on as JSON: what is stored as it would be written is not read first."""
    rows, following = model_search.search(connection, query, limit, after)
    return [msgspec.Raw(row.manifest if _is_current(row) else encode(_manifest(row))) for row in rows], following


def newest(
    connection: Connection,
    limit: int,
    after: str | None = None,
    *,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> tuple[list[ModelManifest], str | None]:
    """:func:`find` by name and tags alone."""
    labels = tuple(Label(key, value) for key, value in (tags or {}).items())
    return find(connection, ModelQuery(name=name, tags=labels), limit, after)


def is_version(name: str, version: int) -> ColumnElement[bool]:
    """The condition that picks one row of ``model_versions``."""
    return and_(model_versions.c.name == name, model_versions.c.version == version)


def _check(request: RegisterModel) -> None:
    check_paths(request.files)
    _check_labels(request.name, request.tags, request.properties)
    names = [data.name for data in request.data]
    if len(set(names)) < len(names):
        raise RegistrationRefused(name=request.name, problem="one data set is given twice")


def _check_labels(name: str, tags: Mapping[str, str], properties: Mapping[str, str]) -> None:
    for kind, labels in (("tags", tags), ("properties", properties)):
        if len(labels) > MOST_LABELS:
            raise TooManyLabels(name=name, count=len(labels), kind=kind, most=MOST_LABELS)


def _insert(connection: Connection, manifest: ModelManifest) -> None:
    key = {"name": manifest.name, "version": manifest.version}
    _INSERT_VERSION.run(connection, version_row(manifest))
    _INSERT_FILES.run_many(connection, file_rows(manifest))
    model_words.insert(connection, manifest)
    if manifest.sample_input:
        connection.execute(model_samples.insert(), {**key, "digest": manifest.sample_input.digest})
    if manifest.data:
        connection.execute(
            model_data.insert(), [{**key, "data_name": data.name, "digest": data.digest} for data in manifest.data]
        )


def version_row(manifest: ModelManifest) -> dict[str, Any]:
    """Of ``model_versions``."""
    return {
        "name": manifest.name,
        "version": manifest.version,
        "digest": manifest.digest,
        "framework": manifest.framework,
        "run_id": manifest.run_id,
        "source_commit": manifest.source.commit if manifest.source else None,
        "manifest": encode(manifest).decode(),
        "created_at": to_text(manifest.created_at),
    }


def file_rows(manifest: ModelManifest) -> model_words.Rows:
    """Of ``model_files``."""
    key = {"name": manifest.name, "version": manifest.version}
    return [{**key, "path": entry.path, "digest": entry.digest} for entry in manifest.files]


def _find(connection: Connection, reference: Reference) -> Any:  # noqa: ANN401 - a row of these columns
    version = reference.version
    if reference.alias is not None and reference.alias != model_aliases.NEWEST:
        version = model_aliases.version_of(connection, reference.name, reference.alias)
        if version is None:
            raise _missing(reference)
    values = {"name": reference.name, "version": version, "digest": reference.digest}
    row = _one_version(newest=version is None, by_digest=reference.digest is not None).first(connection, values)
    if row is None:
        raise _missing(reference)
    if row.deleted_at is not None:
        raise told_by_tombstone(row, "model", "model")
    return row


@functools.cache
def _one_version(*, newest: bool, by_digest: bool) -> Prepared:
    columns = ("name", "version", "manifest", "revision", "deleted_at", "deleted_by")
    query = select(*(model_versions.c[column] for column in columns), model_aliases.listed().label("aliases"))
    query = query.where(model_versions.c.name == bindparam("name"))
    if newest:
        query = query.where(model_versions.c.deleted_at.is_(None)).order_by(model_versions.c.version.desc()).limit(1)
    else:
        query = query.where(model_versions.c.version == bindparam("version"))
    if by_digest:
        query = query.where(model_versions.c.digest == bindparam("digest"))
    return Prepared(lambda _: query)


def _missing(reference: Reference) -> RecordNotFound:
    return RecordNotFound(kind="model", name=reference, command="model")


def _is_current(row: Any) -> bool:  # noqa: ANN401 - a row of model_search
    """Whether the stored document reads as :func:`_manifest` would write it again."""
    if row.aliases is not None:
        return False
    try:
        return bool(_STORED.decode(row.manifest).revision == row.revision)
    except msgspec.ValidationError:  # written before a field was added
        return False


def _manifest(row: Any) -> ModelManifest:  # noqa: ANN401 - a row of _find or of model_search
    found = decode(row.manifest, ModelManifest)
    # An alias that moves counts the revision up without rewriting the document.
    if row.aliases is None and found.revision == row.revision:
        return found
    return msgspec.structs.replace(found, aliases=model_aliases.parse_listed(row.aliases), revision=row.revision)
