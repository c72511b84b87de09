"""An image of a layout as the tar that goes into a container engine. (`image export` makes its own: hedgerow/sdk/image_tar.py.)

It is a layout of that image alone, with the `manifest.json` beside it that Docker's classic image store wants.
"""

from __future__ import annotations

from collections.abc import Iterator

from hedgerow.contracts.oci import Descriptor, index_bytes
from hedgerow.contracts.oci_layout import OCI_LAYOUT, blob_path, docker_manifest
from hedgerow.tar_headers import END_OF_TAR, padding, plain_header
from packager.oci.blobs import BlobFolder, file_chunks
from packager.oci.layout import read_manifest


def export_image(blobs: BlobFolder, image: Descriptor, tag: str | None = None) -> Iterator[bytes]:
    """The tar of one manifest with its config and layers, in chunks. ``tag`` (`name:version`) is what docker will call it.

    Raises BaseUnreadable, BlobCorrupt.
    """
    manifest = read_manifest(blobs, image.digest)
    layers = [layer.digest for layer in manifest.layers]
    for digest in sorted({image.digest, manifest.config.digest, *layers}):
        path = blobs.path(digest)
        size = path.stat().st_size
        yield plain_header(blob_path(digest), size)
        yield from file_chunks(path)
        yield padding(size)
    documents = {
        "index.json": index_bytes([image]),
        "manifest.json": docker_manifest(manifest.config.digest, layers, tag),
        "oci-layout": OCI_LAYOUT,
    }
    for name, data in documents.items():
        yield plain_header(name, len(data)) + data + padding(len(data))
    yield END_OF_TAR
