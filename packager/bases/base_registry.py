"""`registry:HOST/NAME:TAG`: a base out of a registry. Its digest is the manifest's for the platform that is built.

Layers that the cache has are not fetched again; what a digest names, and is here, is not even asked for.
"""

from __future__ import annotations

import logging
from functools import partial

from hedgerow.contracts.oci import Descriptor, ImageConfig, Manifest, Platform
from hedgerow.contracts.remote_image import RemoteImage
from packager.bases.base_image import BaseImage, as_oci, keep_base, known_base
from packager.cache.layers import LayerCache, cache_key
from packager.distribution.access import RemoteAccess
from packager.distribution.parallel import in_parallel
from packager.distribution.pull import blob_chunks, fetch_for
from packager.distribution.repository import Repository
from packager.errors import BaseUnreadable
from packager.oci.blobs import DOCUMENT_BYTES_MAX
from packager.oci.documents import read_foreign

log = logging.getLogger(__name__)


def from_registry(reference: str, platform: Platform, cache: LayerCache, remote: RemoteAccess) -> BaseImage:
    """Raises the errors of distribution/errors.py, EgressRefused, BaseUnreadable, BlobCorrupt, DiskFull."""
    image = RemoteImage.parse(reference)
    if image.digest and (known := _pinned(cache, image.digest, platform)):
        return known
    with Repository(image, remote) as repository:
        found = fetch_for(repository, image.wanted, platform)
        base = known_base(cache, found.digest) or _fetch(repository, found.digest, found.data, cache)
    if image.digest:
        cache.keep("base-pinned", _pin(image.digest, platform), found.digest)
    return base


def _pinned(cache: LayerCache, digest: str, platform: Platform) -> BaseImage | None:
    manifest = cache.find("base-pinned", _pin(digest, platform), str)
    return known_base(cache, manifest) if manifest else None


def _pin(digest: str, platform: Platform) -> str:
    return cache_key(digest, str(platform))


def _fetch(repository: Repository, digest: str, data: bytes, cache: LayerCache) -> BaseImage:
    where = str(repository.image)
    manifest = read_foreign(data, Manifest, where)
    config = read_foreign(_small_blob(repository, manifest.config, cache), ImageConfig, where)
    missing = {layer.digest: layer for layer in manifest.layers if not cache.blobs.holds(layer.digest)}
    log.info("fetching %d of %d layers of %s (%s)", len(missing), len(manifest.layers), where, digest)

    def take(layer: Descriptor) -> None:
        cache.blobs.add(blob_chunks(repository, layer), expected=layer.digest, where=where)

    in_parallel([partial(take, layer) for layer in missing.values()], repository)
    return keep_base(cache, digest, where, config, [as_oci(layer) for layer in manifest.layers])


def _small_blob(repository: Repository, blob: Descriptor, cache: LayerCache) -> bytes:
    if blob.size > DOCUMENT_BYTES_MAX:
        raise BaseUnreadable(base=repository.image, problem=f"its config has {blob.size} bytes")
    if not cache.blobs.holds(blob.digest):
        cache.blobs.add(blob_chunks(repository, blob), expected=blob.digest, where=repository.image)
    return cache.blobs.read(blob.digest)
