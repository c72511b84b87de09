"""Writes and reads an OCI image layout: `oci-layout`, `index.json`, `blobs/sha256/`.

`index.json` is written last. A folder without it is no layout, so a build that fails half-way leaves nothing to pick up.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.names import MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST
from packager.blobs import DOCUMENT_BYTES_MAX, BlobFolder, disk_error
from packager.errors import BaseUnreadable, OutNotEmpty
from packager.oci_documents import (
    MEDIA_DOCKER_INDEX,
    MEDIA_DOCKER_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    index_bytes,
    manifest_bytes,
    read_foreign,
)

_INDEX_TYPES = frozenset({MEDIA_OCI_INDEX, MEDIA_DOCKER_INDEX})
_MANIFEST_TYPES = frozenset({MEDIA_OCI_MANIFEST, MEDIA_DOCKER_MANIFEST})
ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'


class OciLayout:
    """A layout that is being written into ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Raises OutNotEmpty when something stands there already."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutNotEmpty(out=folder)
        self.folder = folder
        self.blobs = BlobFolder(folder)

    def add_document(self, data: bytes, media_type: str, platform: Platform | None = None) -> Descriptor:
        blob = self.blobs.add([data])
        return Descriptor(media_type=media_type, digest=blob.digest, size=blob.size_bytes, platform=platform)

    def add_manifest(
        self, config: Descriptor, layers: list[Descriptor], *, artifact_type: str = "", platform: Platform | None = None
    ) -> Descriptor:
        return self.add_document(manifest_bytes(config, layers, artifact_type), MEDIA_OCI_MANIFEST, platform)

    def add_top(self, manifests: list[Descriptor]) -> Descriptor:
        """One manifest stands for itself; several get an index above them."""
        return manifests[0] if len(manifests) == 1 else self.add_document(index_bytes(manifests), MEDIA_OCI_INDEX)

    def seal(self, top: Descriptor, name: str) -> None:
        """Make the folder a layout. ``name`` is written beside the image, so it does not change the digest."""
        named = msgspec.structs.replace(top, annotations={ANNOTATION_REF_NAME: name})
        try:
            atomic_write(self.folder / "oci-layout", LAYOUT_FILE)
            atomic_write(self.folder / "index.json", index_bytes([named]))
        except OSError as problem:
            raise disk_error(problem, self.folder) from problem


def read_manifest(blobs: BlobFolder, digest: str) -> Manifest:
    """A manifest of a layout by its digest, checked against it."""
    return read_foreign(blobs.read(digest), Manifest, str(blobs.folder))


def find_manifest(layout: Path, wanted: Platform | None) -> Descriptor:
    """The manifest of ``layout`` for ``wanted`` (None: the only or first one). Indexes are searched depth first.

    Raises BaseUnreadable when there is no such layout or no such platform in it; BlobCorrupt.
    """
    try:
        index = read_foreign(_index_bytes(layout / "index.json"), Index, str(layout))
    except OSError as problem:
        raise BaseUnreadable(base=layout, problem=f"no index.json can be read there ({problem.strerror})") from problem
    blobs, seen, entered = BlobFolder(layout), [], set[str]()
    pending = list(index.manifests)
    while pending:
        descriptor = pending.pop(0)
        if descriptor.media_type in _INDEX_TYPES:
            if descriptor.digest in entered:
                continue  # thirty indexes that each name the next one twice are a billion manifests
            entered.add(descriptor.digest)
            pending[:0] = read_foreign(blobs.read(descriptor.digest), Index, str(layout)).manifests
        elif descriptor.media_type in _MANIFEST_TYPES:
            if wanted is None or descriptor.platform is None or descriptor.platform.suits(wanted):
                return descriptor
            seen.append(str(descriptor.platform))
    found = f"it has {', '.join(seen)}" if seen else "it has no image"
    raise BaseUnreadable(base=layout, problem=f"nothing in it suits {wanted}; {found}")


def _index_bytes(path: Path) -> bytes:
    if not path.is_file():  # opening a pipe would wait for ever
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with path.open("rb") as file:
        data = file.read(DOCUMENT_BYTES_MAX + 1)
    if len(data) > DOCUMENT_BYTES_MAX:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data
