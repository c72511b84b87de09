"""An image as one tar that `docker load` and OCI tools both read.

The layout goes in as it is, with the `manifest.json` beside it that Docker's classic image store wants.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from hedgerow.contracts.names import MEDIA_OCI_CONFIG
from packager.blobs import BlobFolder, file_chunks
from packager.oci_documents import Descriptor, Index, Manifest, index_bytes, read_foreign
from packager.oci_layout import LAYOUT_FILE, find_manifest, read_manifest
from packager.tar_layer import END_OF_TAR, file_member


def export_layout(layout: Path, tag: str | None = None) -> Iterator[bytes]:
    """The tar of a finished layout in ``layout``, in chunks. ``tag`` (`name:version`) is what docker will call the image.

    An ONNX artifact cannot run in an engine, so its tar has no `manifest.json`. Raises BaseUnreadable, BlobCorrupt.
    """
    index = (layout / "index.json").read_bytes()
    found = find_manifest(layout, None)
    yield from _archive(BlobFolder(layout), index, found, tag)


def export_image(blobs: BlobFolder, image: Descriptor, tag: str | None = None) -> Iterator[bytes]:
    """Like :func:`export_layout` for one image of a layout that is not sealed yet."""
    yield from _archive(blobs, index_bytes([image]), image, tag)


def _archive(blobs: BlobFolder, index: bytes, image: Descriptor, tag: str | None) -> Iterator[bytes]:
    documents = {"index.json": index, "oci-layout": LAYOUT_FILE}
    manifest = read_manifest(blobs, image.digest)
    if manifest.config.media_type == MEDIA_OCI_CONFIG:
        documents["manifest.json"] = _docker_manifest(manifest, tag)
    for digest in _reachable(blobs, index):
        path = blobs.path(digest)
        yield from file_member(_place(digest), path.stat().st_size, file_chunks(path))
    for name, data in sorted(documents.items()):
        yield from file_member(name, len(data), iter([data]))
    yield END_OF_TAR


def _docker_manifest(manifest: Manifest, tag: str | None) -> bytes:
    layers = [_place(layer.digest) for layer in manifest.layers]
    entry = {"Config": _place(manifest.config.digest), "RepoTags": [tag] if tag else None, "Layers": layers}
    return msgspec.json.encode([entry], order="sorted")


def _reachable(blobs: BlobFolder, index: bytes) -> list[str]:
    """Digests of everything below an index, each once, sorted."""
    found: set[str] = set()
    pending = list(read_foreign(index, Index, str(blobs.folder)).manifests)
    while pending:
        descriptor = pending.pop()
        found.add(descriptor.digest)
        if descriptor.media_type.endswith("index.v1+json"):
            pending += read_foreign(blobs.read(descriptor.digest), Index, str(blobs.folder)).manifests
        elif descriptor.media_type.endswith("manifest.v1+json"):
            manifest = read_manifest(blobs, descriptor.digest)
            found |= {manifest.config.digest, *(layer.digest for layer in manifest.layers)}
    return sorted(found)


def _place(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
