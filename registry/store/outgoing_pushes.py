"""What a push to somebody else's registry needs to know: the image's content, and where earlier pushes went."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from hedgerow.contracts.remote_image import RemoteImage, RemoteReferenceInvalid
from registry.store.images import ImageBlob
from registry.store.tables import activities, blobs, image_blobs
from registry.vault import Sealed

IMAGE_PUSH = "image.push"
_LOOKED_AT, _NEIGHBOURS = 200, 3


class SealedPassword(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A password that was given with the request, as the vault seals it under ``name``."""

    name: str
    key_id: str
    data: bytes

    def sealed(self) -> Sealed:
        return Sealed(self.key_id, self.data)


class PushTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request of an ``image.push`` activity: ``image`` is pinned to a version, and no password stands in it."""

    image: str
    target: str
    username: str | None = None
    password: SealedPassword | None = None
    secret: str | None = None
    mount_from: list[str] = []
    referrers: bool = True


def content_of(connection: Connection, name: str, version: int) -> list[ImageBlob]:
    """Everything that one version and what lies beside it consist of, in the order of digests."""
    query = (
        select(image_blobs.c.digest, image_blobs.c.media_type, blobs.c.size_bytes)
        .join(blobs, blobs.c.digest == image_blobs.c.digest)
        .where(image_blobs.c.image_name == name, image_blobs.c.image_version == version)
        .order_by(image_blobs.c.digest)
    )
    return [ImageBlob(row.digest, row.media_type, row.size_bytes) for row in connection.execute(query)]


def neighbours(connection: Connection, target: RemoteImage) -> list[str]:
    """Other repositories of the target's registry that earlier pushes filled, the last one first; a few."""
    query = (
        select(activities.c.request)
        .where(activities.c.kind == IMAGE_PUSH, activities.c.state == "succeeded")
        .order_by(activities.c.created_at.desc())
        .limit(_LOOKED_AT)
    )
    found: dict[str, None] = {}
    for row in connection.execute(query):
        try:
            there = RemoteImage.parse(msgspec.json.decode(row.request, type=PushTask).target)
        except (msgspec.MsgspecError, RemoteReferenceInvalid):
            continue  # of another version of Hedgerow
        if there.origin == target.origin and there.repository != target.repository:
            found[there.repository] = None
    return list(found)[:_NEIGHBOURS]
