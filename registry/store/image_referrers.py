"""What lies beside an image: SBOM, build report, verification, signatures. Each is a manifest that names its ``subject``.

A referrer belongs to every version of its repository that consists of the subject; its blobs are that version's blobs
(``image_blobs``), so whatever holds for an image's content holds for what lies beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, and_, select

from hedgerow.contracts.image import Referrer
from registry.store.tables import desired_images, image_blobs, image_referrers
from registry.store.upsert import insert


def add(connection: Connection, name: str, version: int, referrers: Iterable[Referrer]) -> None:
    """Write them down for a version whose ``image_blobs`` hold what they lead to. Again changes nothing."""
    rows = [
        {
            "image_name": name,
            "image_version": version,
            "digest": referrer.digest,
            "subject": referrer.subject,
            "media_type": referrer.media_type,
            "artifact_type": referrer.artifact_type,
            "size_bytes": referrer.size_bytes,
            "annotations": msgspec.json.encode(referrer.annotations, order="sorted").decode(),
        }
        for referrer in referrers
    ]
    if rows:
        connection.execute(insert(connection, image_referrers).on_conflict_do_nothing(), rows)


def add_with_blobs(connection: Connection, name: str, version: int, referrer: Referrer, parts: Iterable[tuple[str, str]]) -> None:
    """:func:`add` for one that came later; ``parts`` are (digest, media type) of all that it leads to, itself included."""
    key = {"image_name": name, "image_version": version}
    rows = [{**key, "digest": digest, "media_type": media_type} for digest, media_type in dict(parts).items()]
    connection.execute(insert(connection, image_blobs).on_conflict_do_nothing(), rows)
    add(connection, name, version, [referrer])


def of_subject(connection: Connection, name: str, subject: str, *, device_uuid: str | None = None) -> list[Referrer]:
    """What refers to manifest ``subject`` in repository ``name``, in the order of digests.

    With ``device_uuid`` only beside versions that this device should run.
    """
    query = select(image_referrers).where(image_referrers.c.image_name == name, image_referrers.c.subject == subject)
    if device_uuid is not None:
        query = query.join(
            desired_images,
            and_(
                desired_images.c.image_name == image_referrers.c.image_name,
                desired_images.c.image_version == image_referrers.c.image_version,
                desired_images.c.device_uuid == device_uuid,
            ),
        )
    rows = connection.execute(query.order_by(image_referrers.c.digest))
    # The same content may be two versions: each has its own rows.
    return list({row.digest: _referrer(row) for row in rows}.values())


def of_version(connection: Connection, name: str, version: int) -> list[Referrer]:
    """Everything beside one version, in the order of digests."""
    query = select(image_referrers).where(image_referrers.c.image_name == name, image_referrers.c.image_version == version)
    return [_referrer(row) for row in connection.execute(query.order_by(image_referrers.c.digest))]


def versions_with(connection: Connection, name: str, manifest: str) -> list[int]:
    """The versions of ``name`` that consist of ``manifest`` (their own, or one of their platforms), oldest first."""
    query = select(image_blobs.c.image_version).where(image_blobs.c.image_name == name, image_blobs.c.digest == manifest)
    return [row.image_version for row in connection.execute(query.order_by(image_blobs.c.image_version))]


def _referrer(row: object) -> Referrer:
    found: dict[str, object] = {str(name): value for name, value in row._mapping.items()}  # type: ignore[attr-defined]  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    annotations = msgspec.json.decode(str(found["annotations"]), type=dict[str, str])
    return msgspec.convert(found | {"annotations": annotations}, Referrer)
