"""Writes and reads an OCI image layout: `oci-layout`, `index.json`, `blobs/sha256/`.

`index.json` is written last. A folder without it is no layout, so a build that fails half-way leaves nothing to pick up.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.names import INDEX_TYPES, MANIFEST_TYPES, MEDIA_OCI_EMPTY, MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST
from hedgerow.contracts.oci import Descriptor, Index, Manifest, Platform, index_bytes
from hedgerow.contracts.oci_layout import OCI_LAYOUT
from packager.errors import BaseUnreadable, OutNotEmpty
from packager.oci.blobs import DOCUMENT_BYTES_MAX, BlobFolder, disk_error
from packager.oci.documents import manifest_bytes, read_foreign

ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name"


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
        self,
        config: Descriptor,
        layers: list[Descriptor],
        *,
        artifact_type: str = "",
        platform: Platform | None = None,
        annotations: dict[str, str] | None = None,
    ) -> Descriptor:
        document = manifest_bytes(config, layers, artifact_type, annotations=annotations)
        return self.add_document(document, MEDIA_OCI_MANIFEST, platform)

    def add_artifact(self, subject: Descriptor, artifact_type: str, data: bytes) -> Descriptor:
        """A document that lies beside ``subject`` (image-spec, manifest.md, "Guidelines for Artifact Usage")."""
        empty = self.add_document(b"{}", MEDIA_OCI_EMPTY)
        document = self.add_document(data, artifact_type)
        about = Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size)
        manifest = self.add_document(manifest_bytes(empty, [document], artifact_type, about), MEDIA_OCI_MANIFEST)
        return msgspec.structs.replace(manifest, artifact_type=artifact_type)

    def add_top(self, manifests: list[Descriptor]) -> Descriptor:
        """One manifest stands for itself; several get an index above them."""
        return manifests[0] if len(manifests) == 1 else self.add_document(index_bytes(manifests), MEDIA_OCI_INDEX)

    def seal(self, top: Descriptor, name: str, beside: Iterable[Descriptor] = ()) -> None:
        """Make the folder a layout. ``name`` is written beside the image, so it does not change the digest.

        ``beside`` are artifacts that refer to the image; they come after it, so who takes the first entry takes the image.
        """
        named = msgspec.structs.replace(top, annotations={ANNOTATION_REF_NAME: name})
        try:
            atomic_write(self.folder / "oci-layout", OCI_LAYOUT)
            atomic_write(self.folder / "index.json", index_bytes([named, *beside]))
        except OSError as problem:
            raise disk_error(problem, self.folder) from problem


def read_manifest(blobs: BlobFolder, digest: str) -> Manifest:
    """A manifest of a layout by its digest, checked against it."""
    return read_foreign(blobs.read(digest), Manifest, str(blobs.folder))


def find_manifest(layout: Path, wanted: Platform | None) -> Descriptor:
    """The manifest of ``layout`` for ``wanted`` (None: the only or first one). Indexes are searched depth first.

    Raises BaseUnreadable when there is no such layout or no such platform in it; BlobCorrupt.
    """
    blobs, seen, entered = BlobFolder(layout), [], set[str]()
    pending = list(read_index(layout).manifests)
    while pending:
        descriptor = pending.pop(0)
        if descriptor.media_type in INDEX_TYPES:
            if descriptor.digest in entered:
                continue  # thirty indexes that each name the next one twice are a billion manifests
            entered.add(descriptor.digest)
            pending[:0] = read_foreign(blobs.read(descriptor.digest), Index, str(layout)).manifests
        elif descriptor.media_type in MANIFEST_TYPES and not descriptor.artifact_type:
            if wanted is None or descriptor.platform is None or descriptor.platform.suits(wanted):
                return descriptor
            seen.append(str(descriptor.platform))
    found = f"it has {', '.join(seen)}" if seen else "it has no image"
    raise BaseUnreadable(base=layout, problem=f"nothing in it suits {wanted}; {found}")


def read_index(layout: Path) -> Index:
    """Raises BaseUnreadable when there is no such layout."""
    try:
        return read_foreign(_index_bytes(layout / "index.json"), Index, str(layout))
    except OSError as problem:
        raise BaseUnreadable(base=layout, problem=f"no index.json can be read there ({problem.strerror})") from problem


def _index_bytes(path: Path) -> bytes:
    if not path.is_file():  # opening a pipe would wait for ever
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with path.open("rb") as file:
        data = file.read(DOCUMENT_BYTES_MAX + 1)
    if len(data) > DOCUMENT_BYTES_MAX:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data
