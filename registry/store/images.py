"""Image versions: what a build made, the blobs it consists of and the models inside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, exists, select

from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import Reference, check_name
from registry.errors import InUse, RecordNotFound
from registry.store import versions
from registry.store.keyset import page_of, split_page
from registry.store.tables import (
    blobs,
    deployments,
    desired_images,
    devices,
    image_blobs,
    image_models,
    image_names,
    image_versions,
)
from registry.store.time_text import to_text


@dataclass(frozen=True)
class ImageBlob:
    """One blob of an image: its manifest or index, config, or a layer."""

    digest: str
    media_type: str
    size_bytes: int


def next_version(connection: Connection, name: str) -> int:
    """Reserve the next version number of ``name``; a build that fails leaves its number unused."""
    return versions.next_version(connection, image_names, name)


def insert(connection: Connection, record: ImageRecord, parts: Iterable[tuple[str, str]]) -> None:
    """Record a finished image under a number from :func:`next_version`.

    ``parts`` are (digest, media type) of everything the image consists of, its manifest included; each must be known
    (``registry.store.blobs.record``).
    """
    key = {"image_name": record.name, "image_version": record.version}
    connection.execute(
        image_versions.insert().values(
            name=record.name,
            version=record.version,
            digest=record.digest,
            kind=record.kind,
            record=encode(record).decode(),
            created_at=to_text(record.created_at),
        )
    )
    if record.models:
        models = [{**key, "model_name": model.name, "model_version": model.version} for model in record.models]
        connection.execute(image_models.insert(), models)
    # Equal layers of two platforms are one blob.
    stored = [{**key, "digest": digest, "media_type": media_type} for digest, media_type in dict(parts).items()]
    if stored:
        connection.execute(image_blobs.insert(), stored)


def get(connection: Connection, reference: Reference) -> ImageRecord:
    """The version that ``reference`` names, the newest one if it names none. Raises RecordNotFound."""
    query = select(image_versions.c.record).where(image_versions.c.name == reference.name)
    if reference.version is not None:
        query = query.where(image_versions.c.version == reference.version)
    if reference.digest is not None:
        query = query.where(image_versions.c.digest == reference.digest)
    row = connection.execute(query.order_by(image_versions.c.version.desc()).limit(1)).one_or_none()
    if row is None:
        raise RecordNotFound(kind="image", name=reference, command="image")
    return decode(row.record, ImageRecord)


def by_digest(connection: Connection, digest: str) -> ImageRecord | None:
    """The newest image with this digest, under whatever name."""
    row = connection.execute(
        select(image_versions.c.record)
        .where(image_versions.c.digest == digest)
        .order_by(image_versions.c.created_at.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else decode(row.record, ImageRecord)


def newest(
    connection: Connection, limit: int, after: str | None = None, *, name: str | None = None
) -> tuple[list[ImageRecord], str | None]:
    """Newest first, with the ``after`` of the following page (None at the end)."""
    query = select(image_versions)
    if name is not None:
        query = query.where(image_versions.c.name == check_name(name, "image"))
    rows = connection.execute(page_of(query, image_versions, limit, after)).all()
    page, following = split_page(list(rows), limit)
    return [decode(row.record, ImageRecord) for row in page], following


def delete_version(connection: Connection, reference: Reference) -> ImageRecord:
    """Take one version away for ever; its number is never used again. Raises RecordNotFound, InUse."""
    record = get(connection, reference)
    users = users_of(connection, record.name, record.version)
    if users:
        raise InUse(kind="Image", name=f"{record.name}:{record.version}", users=", ".join(users))
    connection.execute(
        delete(image_versions).where(image_versions.c.name == record.name, image_versions.c.version == record.version)
    )
    return record


def users_of(connection: Connection, name: str, version: int) -> list[str]:
    """In words: the deployments that run this image and the device modules that should."""
    serving = connection.execute(
        select(deployments.c.endpoint, deployments.c.name)
        .where(deployments.c.image_name == name, deployments.c.image_version == version)
        .order_by(deployments.c.endpoint, deployments.c.name)
    )
    at_the_edge = connection.execute(
        select(devices.c.name, desired_images.c.module)
        .join(devices, devices.c.uuid == desired_images.c.device_uuid)
        .where(desired_images.c.image_name == name, desired_images.c.image_version == version)
        .order_by(devices.c.name, desired_images.c.module)
    )
    return [f"deployment {row.endpoint}/{row.name}" for row in serving] + [
        f"module {row.module} of device {row.name}" for row in at_the_edge
    ]


def find_blob(connection: Connection, name: str, digest: str, *, device_uuid: str | None = None) -> ImageBlob | None:
    """A blob of any version of image ``name``; with ``device_uuid`` only of versions that this device should run."""
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


def digest_of(connection: Connection, name: str, version: int) -> str:
    """Raises RecordNotFound."""
    return get(connection, Reference(name, version)).digest


def versions_of(connection: Connection, name: str, *, device_uuid: str | None = None) -> list[int]:
    """Version numbers of ``name``, oldest first; with ``device_uuid`` only those that this device should run."""
    query = select(image_versions.c.version).where(image_versions.c.name == name).order_by(image_versions.c.version)
    if device_uuid is not None:
        query = query.where(
            exists(1).where(
                desired_images.c.device_uuid == device_uuid,
                desired_images.c.image_name == image_versions.c.name,
                desired_images.c.image_version == image_versions.c.version,
            )
        )
    return [row.version for row in connection.execute(query)]
