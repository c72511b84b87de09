"""What a push consists of, read from the layout: blobs, and manifests from the leaves up. Talks to nobody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.names import INDEX_TYPES, MANIFEST_TYPES, MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST
from hedgerow.contracts.oci import Descriptor, ImageDocument, Index, Manifest
from packager.errors import BlobCorrupt
from packager.oci.blobs import BlobFolder
from packager.oci.documents import read_foreign


@dataclass(frozen=True)
class ManifestStep:
    """A manifest or index to send. ``subject`` is the digest of what it lies beside; ``entry`` how a list of such names it."""

    digest: str
    media_type: str
    data: bytes
    subject: str | None
    entry: Descriptor


@dataclass(frozen=True)
class PushPlan:
    """In the order of sending: ``blobs`` (the largest first), what is ``below`` the image, ``beside`` it, itself (``top``)."""

    blobs: tuple[Descriptor, ...]
    below: tuple[ManifestStep, ...]
    beside: tuple[ManifestStep, ...]
    top: ManifestStep

    @property
    def size_bytes(self) -> int:
        return sum(blob.size for blob in self.blobs)


class _Reader:
    def __init__(self, layout: Path) -> None:
        self._blobs, self._where = BlobFolder(layout), str(layout)
        self.found: dict[str, Descriptor] = {}
        self.steps: dict[str, ManifestStep] = {}

    def read(self, digest: str) -> ManifestStep:
        """One manifest with everything below it, children first; each once. Raises BaseUnreadable, BlobCorrupt."""
        if digest in self.steps:
            return self.steps[digest]
        data = self._blobs.read(digest)
        document = read_foreign(data, ImageDocument, self._where)
        if document.manifests is not None:
            step = self._index(digest, data, document.media_type or MEDIA_OCI_INDEX)
        else:
            step = self._manifest(digest, data, document.media_type or MEDIA_OCI_MANIFEST)
        return self.steps.setdefault(digest, step)

    def _index(self, digest: str, data: bytes, media_type: str) -> ManifestStep:
        for child in read_foreign(data, Index, self._where).manifests:
            if child.media_type in INDEX_TYPES | MANIFEST_TYPES:
                self.read(child.digest)
            else:
                self._take(child)
        return ManifestStep(digest, media_type, data, None, Descriptor(media_type=media_type, digest=digest, size=len(data)))

    def _manifest(self, digest: str, data: bytes, media_type: str) -> ManifestStep:
        manifest = read_foreign(data, Manifest, self._where)
        for blob in (manifest.config, *manifest.layers):
            self._take(blob)
        entry = Descriptor(
            media_type=media_type,
            digest=digest,
            size=len(data),
            # As the distribution specification wants it in lists of referrers.
            artifact_type=manifest.artifact_type or manifest.config.media_type,
            annotations=manifest.annotations,
        )
        return ManifestStep(digest, media_type, data, manifest.subject.digest if manifest.subject else None, entry)

    def _take(self, blob: Descriptor) -> None:
        path = self._blobs.path(blob.digest)
        if not path.is_file() or path.stat().st_size != blob.size:
            raise BlobCorrupt(digest=blob.digest, where=self._where)
        self.found.setdefault(blob.digest, blob)


def plan_push(layout: Path, source: str, named: list[Descriptor]) -> PushPlan:
    """``named``: what else lies in the layout, of which referrers of the image and of its parts are taken, and theirs.

    Raises BaseUnreadable (a document that is none), BlobCorrupt (content that is missing or another).
    """
    image = _Reader(layout)
    top = image.read(source)
    beside = _Reader(layout)
    wanted, order = set(image.steps), dict[str, ManifestStep]()
    candidates = [step for one in named if one.digest not in image.steps for step in [_Reader(layout).read(one.digest)]]
    while fresh := [step for step in candidates if step.subject in wanted and step.digest not in order]:
        for step in fresh:
            order[step.digest] = beside.read(step.digest)
            wanted.add(step.digest)
    blobs = {**image.found, **beside.found}
    below = tuple(step for step in image.steps.values() if step.digest != source)
    by_size = sorted(blobs.values(), key=lambda blob: (-blob.size, blob.digest))
    return PushPlan(tuple(by_size), below, tuple(order.values()), top)
