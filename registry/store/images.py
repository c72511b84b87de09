"""Image versions: what a build made, the blobs it consists of, the models and the environment inside it.

An image that something uses cannot be deleted. An owner may force it: then the row stays as a tombstone, so that lineage
and whatever points at it still hold, while its blobs are freed and no device gets it any more. Nothing here but
:mod:`registry.store.lineage` shows tombstones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, exists, select, update

from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.events import Actor
from hedgerow.contracts.image import ImageRecord, ModelRef, Referrer
from hedgerow.contracts.names import Reference
from registry.errors import BuildRefused, InUse, RecordNotFound
from registry.store import image_referrers, tables, versions
from registry.store.deletion import named_users, told_by_tombstone
from registry.store.image_conditions import Wanted, has_tag, narrowed
from registry.store.keyset import page_of, split_page
from registry.store.tables import (
    blobs,
    deployments,
    desired_images,
    devices,
    edge_images,
    environment_versions,
    image_blobs,
    image_environments,
    image_models,
    image_names,
    image_versions,
    model_versions,
)
from registry.store.time_text import to_text

# Of an image that was pushed under another tag than its number: what that was (docs/decisions/014).
PUSHED_AS = "oci.tag"


@dataclass(frozen=True)
class ImageBlob:
    """One blob of an image: its manifest or index, config, or a layer."""

    digest: str
    media_type: str
    size_bytes: int


@dataclass(frozen=True)
class Deleted:
    """What was deleted; ``users`` are those that used it all the same (a forced deletion), in words."""

    record: ImageRecord
    users: list[str]


def next_version(connection: Connection, name: str) -> int:
    """Reserve the next version number of ``name``; a build that fails leaves its number unused."""
    return versions.next_version(connection, image_names, name)


def version_to_come(connection: Connection, name: str) -> int:
    """The number that :func:`next_version` would give now; it is not taken, so another build may get it."""
    last = connection.execute(select(image_names.c.last_version).where(image_names.c.name == name)).scalar_one_or_none()
    return 1 if last is None else int(last) + 1


def with_digest(connection: Connection, name: str, digest: str) -> ImageRecord | None:
    """The newest version of ``name`` with that content."""
    query = select(image_versions.c.record).where(image_versions.c.name == name, image_versions.c.digest == digest, _there())
    row = connection.execute(query.order_by(image_versions.c.version.desc()).limit(1)).one_or_none()
    return None if row is None else decode(row.record, ImageRecord)


def insert(
    connection: Connection, record: ImageRecord, parts: Iterable[tuple[str, str]], referrers: Iterable[Referrer] = ()
) -> None:
    """Record a finished image under a number from :func:`next_version`.

    ``parts`` are (digest, media type) of everything the image and its ``referrers`` consist of, their manifests included;
    each must be known (``registry.store.blobs.record``). Raises BuildRefused when a model or the environment was deleted
    meanwhile.
    """
    key = {"image_name": record.name, "image_version": record.version}
    _hold_models(connection, record)
    connection.execute(
        image_versions.insert().values(
            name=record.name,
            version=record.version,
            digest=record.digest,
            kind=record.kind,
            record=encode(record).decode(),
            created_at=to_text(record.created_at),
            revision=record.revision,
        )
    )
    if record.models:
        models = [{**key, "model_name": model.name, "model_version": model.version} for model in record.models]
        connection.execute(image_models.insert(), models)
    if record.environment is not None:
        made_in = _hold_environment(connection, record, Reference.parse(record.environment))
        connection.execute(image_environments.insert().values(**key, **made_in))
    # Equal layers of two platforms are one blob.
    stored = [{**key, "digest": digest, "media_type": media_type} for digest, media_type in dict(parts).items()]
    if stored:
        connection.execute(image_blobs.insert(), stored)
    image_referrers.add(connection, record.name, record.version, referrers)


def get(connection: Connection, reference: Reference) -> ImageRecord:
    """The version that ``reference`` names, the newest one if it names none. Raises RecordNotFound, RecordDeleted."""
    row = None
    if reference.alias is None:
        query = select(image_versions).where(image_versions.c.name == reference.name)
        if reference.version is not None:
            query = query.where(image_versions.c.version == reference.version)
        else:
            query = query.where(_there())
        if reference.digest is not None:
            query = query.where(image_versions.c.digest == reference.digest)
        row = connection.execute(query.order_by(image_versions.c.version.desc()).limit(1)).one_or_none()
    if row is None:
        raise RecordNotFound(kind="image", name=reference, command="image")
    if row.deleted_at is not None:
        raise told_by_tombstone(row, "image", "image")
    return decode(row.record, ImageRecord)


def hold(connection: Connection, reference: Reference) -> ImageRecord:
    """Like :func:`get`; until the end of a writing transaction nobody deletes it. Raises RecordNotFound.

    Whoever is about to write a row that points at an image holds it first: of a deletion and a deployment at once, the
    one that comes second sees what the first one did.
    """
    while True:
        record = get(connection, reference)
        held = select(image_versions.c.record).where(_is(record.name, record.version), _there()).with_for_update(read=True)
        row = connection.execute(held).one_or_none()
        if row is not None:
            return decode(row.record, ImageRecord)
        # Deleted between the two looks: "the newest" may be another one now, a version is gone.


def newest(
    connection: Connection, limit: int, after: str | None = None, *, wanted: Wanted | None = None
) -> tuple[list[ImageRecord], str | None]:
    """Newest first, with the ``after`` of the following page (None at the end). Raises InvalidName, RecordNotFound."""
    query = select(image_versions).where(_there())
    if wanted is not None:
        query = narrowed(connection, query, wanted)
    rows = connection.execute(page_of(query, image_versions, limit, after)).all()
    page, following = split_page(list(rows), limit)
    return [decode(row.record, ImageRecord) for row in page], following


def change_tags(connection: Connection, held: ImageRecord, tags: Mapping[str, str | None]) -> ImageRecord:
    """Set tags, take away those with the value None; ``held`` was read with :func:`lock`. Equal tags change nothing."""
    changed = {key: value for key, value in (dict(held.tags) | dict(tags)).items() if value is not None}
    if changed == held.tags:
        return held
    record = msgspec.structs.replace(held, tags=changed, revision=held.revision + 1)
    values = {"record": encode(record).decode(), "revision": record.revision}
    connection.execute(update(image_versions).where(_is(record.name, record.version)).values(**values))
    return record


def lock(connection: Connection, reference: Reference) -> ImageRecord:
    """Like :func:`get`, for whoever changes or deletes it: others wait until this transaction ends. Raises RecordNotFound."""
    found = get(connection, reference)
    query = select(image_versions.c.record).where(_is(found.name, found.version), _there()).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RecordNotFound(kind="image", name=reference, command="image")
    return decode(row.record, ImageRecord)


def delete_version(connection: Connection, reference: Reference) -> ImageRecord:
    """Take one version away for ever; its number is never used again. Raises RecordNotFound, InUse."""
    record = lock(connection, reference)
    _refuse_if_used(connection, record)
    _drop(connection, record)
    return record


def force_delete(connection: Connection, reference: Reference, actor: Actor, now: datetime) -> Deleted:
    """Delete a version even though it is used; without users this is a plain deletion. Raises RecordNotFound.

    Its blobs are free for the next garbage collection. Replicas and modules that run it go on until they are started
    anew somewhere; its users keep pointing at the tombstone.
    """
    record = lock(connection, reference)
    users = users_of(connection, record.name, record.version)
    if not users:
        _drop(connection, record)
        return Deleted(record, [])
    here = _is(record.name, record.version)
    connection.execute(update(image_versions).where(here).values(deleted_at=to_text(now), deleted_by=actor.text()))
    gone = (image_blobs.c.image_name == record.name) & (image_blobs.c.image_version == record.version)
    connection.execute(delete(image_blobs).where(gone))
    beside = tables.image_referrers.c
    here = (beside.image_name == record.name) & (beside.image_version == record.version)
    connection.execute(delete(tables.image_referrers).where(here))
    return Deleted(record, users)


def users_of(connection: Connection, name: str, version: int) -> list[str]:
    """In words: the deployments that run this image, the device modules that should, the manifests that name it.

    At most MOST_NAMED of them, and then "and N more".
    """
    serving = select(deployments.c.endpoint, deployments.c.name).order_by(deployments.c.endpoint, deployments.c.name)
    modules = (
        select(desired_images.c.module, devices.c.name)
        .join(devices, devices.c.uuid == desired_images.c.device_uuid)
        .order_by(devices.c.name, desired_images.c.module)
    )
    manifests = select(edge_images.c.edge_deployment, edge_images.c.module).order_by(*edge_images.primary_key)

    def of_it(query: Select[Any], table: Table) -> Select[Any]:
        return query.where(table.c.image_name == name, table.c.image_version == version)

    return named_users(
        connection,
        (of_it(serving, deployments), "deployment {0}/{1}"),
        (of_it(modules, desired_images), "module {0} of device {1}"),
        (of_it(manifests, edge_images), "module {1} of edge deployment {0}"),
    )


def find_blob(connection: Connection, name: str, digest: str, *, device_uuid: str | None = None) -> ImageBlob | None:
    """A blob of any version of image ``name``; with ``device_uuid`` only of versions that this device should run."""
    # A tombstone has no rows in image_blobs.
    query = (
        select(image_blobs.c.digest, image_blobs.c.media_type, blobs.c.size_bytes)
        .join(blobs, blobs.c.digest == image_blobs.c.digest)
        .where(image_blobs.c.image_name == name, image_blobs.c.digest == digest)
        .limit(1)
    )
    if device_uuid is not None:
        query = query.join(
            desired_images,
            and_(
                desired_images.c.image_name == image_blobs.c.image_name,
                desired_images.c.image_version == image_blobs.c.image_version,
                desired_images.c.device_uuid == device_uuid,
            ),
        )
    row = connection.execute(query).one_or_none()
    return None if row is None else ImageBlob(row.digest, row.media_type, row.size_bytes)


def blob_sizes(connection: Connection, name: str, version: int) -> dict[str, int]:
    """Sizes by digest of all that an image version consists of, whatever its platforms."""
    query = (
        select(image_blobs.c.digest, blobs.c.size_bytes)
        .join(blobs, blobs.c.digest == image_blobs.c.digest)
        .where(image_blobs.c.image_name == name, image_blobs.c.image_version == version)
    )
    return {row.digest: row.size_bytes for row in connection.execute(query)}


def digest_of(connection: Connection, name: str, version: int) -> str:
    """Raises RecordNotFound."""
    return get(connection, Reference(name, version)).digest


def versions_of(connection: Connection, name: str, *, device_uuid: str | None = None) -> list[int]:
    """Version numbers of ``name``, oldest first; with ``device_uuid`` only those that this device should run."""
    query = select(image_versions.c.version).where(image_versions.c.name == name, _there()).order_by(image_versions.c.version)
    return [row.version for row in connection.execute(_for_device(query, device_uuid))]


def version_tagged(connection: Connection, name: str, tag: str, *, device_uuid: str | None = None) -> int | None:
    """The newest version of ``name`` that was pushed as ``tag`` (its record's tag ``oci.tag``)."""
    query = select(image_versions.c.version).where(image_versions.c.name == name, _there())
    query = _for_device(query.where(has_tag(connection, f"{PUSHED_AS}={tag}")), device_uuid)
    return connection.execute(query.order_by(image_versions.c.version.desc()).limit(1)).scalar_one_or_none()


def tags_of(connection: Connection, name: str, *, device_uuid: str | None = None) -> list[str]:
    """Every tag by which a version of ``name`` is pulled: its number, and what it was pushed as. In lexical order."""
    # Most images were never pushed: their records stay where they are.
    query = select(image_versions.c.record).where(image_versions.c.name == name, _there())
    named = query.where(image_versions.c.record.contains(f'"{PUSHED_AS}"', autoescape=True))
    pushed = {decode(row.record, ImageRecord).tags.get(PUSHED_AS) for row in connection.execute(_for_device(named, device_uuid))}
    numbers = {str(version) for version in versions_of(connection, name, device_uuid=device_uuid)}
    return sorted(numbers | {tag for tag in pushed if tag})


# --- below -------------------------------------------------------------------------------------------------------------


def _is(name: str, version: int) -> ColumnElement[bool]:
    return and_(image_versions.c.name == name, image_versions.c.version == version)


def _there() -> ColumnElement[bool]:
    return image_versions.c.deleted_at.is_(None)


def _for_device(query: Select[Any], device_uuid: str | None) -> Select[Any]:
    if device_uuid is None:
        return query
    return query.where(
        exists(1).where(
            desired_images.c.device_uuid == device_uuid,
            desired_images.c.image_name == image_versions.c.name,
            desired_images.c.image_version == image_versions.c.version,
        )
    )


def _hold_models(connection: Connection, record: ImageRecord) -> None:
    """In one order everywhere, so that two builds never wait for each other."""
    for model in sorted(record.models, key=lambda one: (one.name, one.version)):
        if not _held(connection, model):
            raise BuildRefused(name=record.name, problem=f"model {model.name}:{model.version} was deleted while it was built")


def _held(connection: Connection, model: ModelRef) -> bool:
    query = select(model_versions.c.name).where(
        model_versions.c.name == model.name,
        model_versions.c.version == model.version,
        model_versions.c.deleted_at.is_(None),
    )
    return connection.execute(query.with_for_update(read=True)).one_or_none() is not None


def _hold_environment(connection: Connection, record: ImageRecord, reference: Reference) -> dict[str, Any]:
    here = (environment_versions.c.name == reference.name) & (environment_versions.c.version == reference.version)
    query = select(environment_versions.c.name).where(here, environment_versions.c.deleted_at.is_(None))
    if connection.execute(query.with_for_update(read=True)).one_or_none() is None:
        raise BuildRefused(name=record.name, problem=f"environment {reference} was deleted while it was built")
    return {"environment_name": reference.name, "environment_version": reference.version}


def _refuse_if_used(connection: Connection, record: ImageRecord) -> None:
    users = users_of(connection, record.name, record.version)
    if users:
        raise InUse(kind="Image", name=f"{record.name}:{record.version}", users=", ".join(users))


def _drop(connection: Connection, record: ImageRecord) -> None:
    connection.execute(delete(image_versions).where(_is(record.name, record.version)))
