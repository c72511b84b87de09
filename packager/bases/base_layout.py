"""`oci:FOLDER`: a base out of an OCI image layout. Its digest is its manifest's."""

from __future__ import annotations

from pathlib import Path

from hedgerow.contracts.oci import ImageConfig, Platform
from packager.bases.base_image import BaseImage, as_oci, keep_base, known_base
from packager.cache.layers import LayerCache
from packager.errors import BaseUnreadable
from packager.oci.blobs import BlobFolder, file_chunks
from packager.oci.documents import read_foreign
from packager.oci.layout import find_manifest, read_manifest


def from_layout(layout: Path, platform: Platform, cache: LayerCache) -> BaseImage:
    """Raises BaseUnreadable, BlobCorrupt, DiskFull."""
    found = find_manifest(layout, platform)
    if known := known_base(cache, found.digest):
        return known
    source = BlobFolder(layout)
    manifest = read_manifest(source, found.digest)
    config = read_foreign(source.read(manifest.config.digest), ImageConfig, str(layout))
    for layer in manifest.layers:
        if not source.path(layer.digest).is_file():
            raise BaseUnreadable(base=layout, problem=f"its layer {layer.digest} is missing")
        # Platforms of one base often share layers.
        if not cache.holds(layer.digest):
            cache.blobs.add(file_chunks(source.path(layer.digest)), expected=layer.digest, where=layout)
    return keep_base(cache, found.digest, str(layout), config, [as_oci(layer) for layer in manifest.layers])
