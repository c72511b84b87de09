"""Finds the content of what lies beside an image: the referrer of a kind, its manifest, and the one blob that this names.

Referrers may have been pushed by others, so nothing of a manifest is believed but that it names blobs of this image.
"""

from __future__ import annotations

from collections.abc import Iterable

from hedgerow.contracts.image import ImageRecord, Referrer
from hedgerow.contracts.oci import read_image_document
from registry.blobs import BlobStore
from registry.store import image_referrers, images
from registry.store.database import Database

# A manifest of an artifact names one blob; it is a few hundred bytes.
_MANIFEST_AT_MOST = 256 * 1024


def content_beside(
    database: Database, store: BlobStore, image: ImageRecord, artifact_type: str, subject: str
) -> images.ImageBlob | None:
    """The content of the artifact of that type that refers to manifest ``subject`` of ``image``; None if there is none.

    Raises BlobDamaged, BlobUnknown, StorageUnavailable.
    """
    with database.read() as connection:
        beside = image_referrers.of_version(connection, image.name, image.version)
    # A blob store may be far away: nothing is held while it is read.
    named = [_named_by(store, referrer) for referrer in _of_kind(beside, artifact_type, subject)]
    with database.read() as connection:
        found = (images.find_blob(connection, image.name, digest) for digest in named if digest is not None)
        return next((blob for blob in found if blob is not None), None)


def _of_kind(beside: Iterable[Referrer], artifact_type: str, subject: str) -> list[Referrer]:
    return [one for one in beside if (one.artifact_type, one.subject) == (artifact_type, subject)]


def _named_by(store: BlobStore, referrer: Referrer) -> str | None:
    if referrer.size_bytes > _MANIFEST_AT_MOST:
        return None
    with store.open(referrer.digest) as content:
        data = content.read()
    try:
        layers = read_image_document(data).layers or []
    except ValueError:
        return None
    return layers[0].digest if len(layers) == 1 else None
