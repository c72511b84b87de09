"""`docker:TAG`: a base out of the container engine of this machine. Its digest is the engine's image id."""

from __future__ import annotations

import logging

from packager.bases.base_archive import base_by_image_id, from_archive
from packager.bases.base_image import BaseImage
from packager.cache.layers import LayerCache
from packager.engine.port import ContainerEngine
from packager.oci.blobs import BlobFolder

log = logging.getLogger(__name__)


def from_engine(tag: str, engine: ContainerEngine, cache: LayerCache) -> BaseImage:
    """Raises BaseUnreadable, EngineFailed, DiskFull."""
    image_id = engine.image_id(tag)
    if known := base_by_image_id(cache, image_id):
        return known
    log.info("saving base image %s (%s) out of the engine", tag, image_id)
    saved = BlobFolder(cache.scratch)
    blob = saved.add(engine.save(image_id))
    try:
        return from_archive(saved.path(blob.digest), cache, known_as=image_id)
    finally:
        saved.path(blob.digest).unlink()
