"""What a pushed manifest leads to, and the image record that is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from hedgerow.contracts.image import ImageKind, ImageRecord, PlatformImage
from hedgerow.contracts.names import INDEX_TYPES, LABEL_BASE_DIGEST, LABEL_TOOL, MANIFEST_TYPES, is_digest
from hedgerow.contracts.oci import Descriptor
from registry.blobs.errors import BlobUnknown
from registry.server.errors import ManifestBlobUnknown, PushedManifestInvalid
from registry.server.http import context
from registry.server.oci_documents import (
    DOCUMENT_BYTES_MAX,
    LABEL_BASE_NAME,
    ImageConfig,
    Manifest,
    decoded,
    kind_of,
    read_manifest,
)
from registry.store import images, pushes

# Of all documents below one index together.
_MANIFESTS_MOST, _PARTS_MOST = 500, 20_000
_DEPTH_MOST = 4
# All of them are in memory at once.
_DOCUMENTS_BYTES_MAX = 32 * 1024 * 1024
_NAME_LENGTH_MAX = 500


@dataclass
class Gathered:
    """Everything that ``top`` leads to: sizes (without its own) as announced, media types with its own, manifests below it."""

    top: Manifest
    sizes: dict[str, int] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)

    def read(self, digest: str, media_type: str) -> Manifest:
        """A stored manifest. Raises PushedManifestInvalid."""
        return read_manifest(_small(digest), media_type, digest)

    def enter(self, digest: str, media_type: str) -> Manifest:
        """:meth:`read` one that is kept in ``manifests``. Raises PushedManifestInvalid, also when all together are too large."""
        one = self.manifests[digest] = self.read(digest, media_type)
        if sum(each.size_bytes for each in self.manifests.values()) > _DOCUMENTS_BYTES_MAX:
            raise PushedManifestInvalid(problem=f"its manifests are more than {_DOCUMENTS_BYTES_MAX} bytes together")
        return one

    def images(self) -> Iterator[tuple[Manifest, Descriptor | None]]:
        """The single manifests, in the order in which the index names them, without attestations."""
        seen = set[str]()
        pending: list[tuple[Manifest, Descriptor | None]] = [(self.top, None)]
        while pending:
            manifest, named = pending.pop(0)
            # Indexes that each name the next one many times are more paths than anybody can walk.
            if manifest.digest in seen:
                continue
            seen.add(manifest.digest)
            if manifest.media_type in MANIFEST_TYPES:
                yield manifest, named
            named_here = [one for one in manifest.document.manifests or [] if one.platform is None or one.platform.is_real]
            pending += [(self.manifests[one.digest], one) for one in named_here if one.digest in self.manifests]


@dataclass(frozen=True)
class Facts:
    """What the configs of a pushed image say."""

    kind: ImageKind
    platforms: list[PlatformImage]
    labels: dict[str, str]


def gather(connection: Connection, name: str, top: Manifest) -> Gathered:
    """What ``top`` leads to, all of which is the repository's now. Raises ManifestBlobUnknown, PushedManifestInvalid."""
    found = Gathered(top, parts={top.digest: top.media_type})
    _gather(connection, name, found, top, _DEPTH_MOST)
    check_there(name, found, pushes.sizes_in(connection, name, found.sizes, context().clock.now()))
    return found


def check_there(name: str, found: Gathered, there: dict[str, int]) -> None:
    """Raises ManifestBlobUnknown, or PushedManifestInvalid for a blob of another size than announced."""
    for digest, size in found.sizes.items():
        if digest not in there:
            raise ManifestBlobUnknown(name=name, digest=digest)
        if there[digest] != size:
            raise PushedManifestInvalid(problem=f"it says that {digest} has {size} bytes, it has {there[digest]}")


def facts_of(manifest: Manifest, found: Gathered) -> Facts:
    """Raises PushedManifestInvalid for what is no image of a kind that there is."""
    kinds: list[ImageKind] = []
    platforms: list[PlatformImage] = []
    labels: dict[str, str] = {}
    for single, named in found.images():
        config = _config_of(single)
        kind = kind_of(single.document, config.labels)
        if kind is None:
            raise PushedManifestInvalid(problem=f"an artifact of the type {single.artifact_type[:80]!r} is no image")
        kinds.append(kind)
        labels = labels or config.labels
        platform = _shown(str(named.platform) if named and named.platform else config.platform, _NAME_LENGTH_MAX)
        platforms.append(PlatformImage(platform=platform or "any", digest=single.digest, size_bytes=_size(single)))
    if not kinds:
        raise PushedManifestInvalid(problem="it has no image")
    if len(set(kinds)) > 1:
        raise PushedManifestInvalid(problem="its platforms are images of different kinds")
    return Facts(kinds[0], platforms, labels)


def record_of(name: str, version: int, manifest: Manifest, facts: Facts, tags: dict[str, str], now: datetime) -> ImageRecord:
    """Models are not named: labels that came from elsewhere prove nothing about the models of this workspace.

    Raises PushedManifestInvalid.
    """
    base_digest = facts.labels.get(LABEL_BASE_DIGEST, "")
    return ImageRecord(
        name=name,
        version=version,
        kind=facts.kind,
        digest=manifest.digest,
        media_type=manifest.media_type,
        size_bytes=sum(one.size_bytes for one in facts.platforms),
        platforms=facts.platforms,
        models=[],
        base=_shown(facts.labels.get(LABEL_BASE_NAME, ""), _NAME_LENGTH_MAX) or None,
        base_digest=base_digest if is_digest(base_digest) else None,
        tool_version=_shown(facts.labels.get(LABEL_TOOL, ""), 100) or "pushed",
        tags=tags,
        created_at=now,
    )


def _gather(connection: Connection, name: str, found: Gathered, manifest: Manifest, depth: int) -> None:
    for below in manifest.document.below:
        if found.sizes.setdefault(below.digest, below.size) != below.size:
            raise PushedManifestInvalid(problem=f"it gives {below.digest} two sizes")
        if below.digest not in found.parts:
            found.parts[below.digest] = below.media_type
        if len(found.parts) > _PARTS_MOST:
            raise PushedManifestInvalid(problem=f"it leads to more than {_PARTS_MOST} blobs")
    for below in manifest.document.manifests or []:
        if below.digest not in found.manifests and below.media_type in INDEX_TYPES | MANIFEST_TYPES:
            if len(found.manifests) >= _MANIFESTS_MOST or depth == 0:
                raise PushedManifestInvalid(problem=f"it has more than {_MANIFESTS_MOST} manifests, or indexes within indexes")
            # Only what is this repository's is opened.
            if not (images.find_blob(connection, name, below.digest) or _pushed(connection, name, below.digest)):
                raise ManifestBlobUnknown(name=name, digest=below.digest)
            _gather(connection, name, found, found.enter(below.digest, below.media_type), depth - 1)


def _pushed(connection: Connection, name: str, digest: str) -> bool:
    return pushes.find(connection, name, digest, context().clock.now()) is not None


def _config_of(manifest: Manifest) -> ImageConfig:
    config = manifest.document.config
    if config is None or kind_of(manifest.document, {}) != "docker":
        return ImageConfig()
    return decoded(_small(config.digest), ImageConfig, "its config")


def _shown(text: str, length_max: int) -> str:
    """What people see in their terminals. Raises PushedManifestInvalid for what would do more there."""
    if not text.isprintable():
        raise PushedManifestInvalid(problem=f"{text[:80]!r} cannot be shown")
    return text[:length_max]


def _size(manifest: Manifest) -> int:
    return manifest.size_bytes + sum({one.digest: one.size for one in manifest.document.below}.values())


def _small(digest: str) -> bytes:
    try:
        with context().blobs.open(digest) as content:
            data = content.read(DOCUMENT_BYTES_MAX + 1)
    except BlobUnknown:
        raise PushedManifestInvalid(problem=f"{digest} is not stored") from None
    if len(data) > DOCUMENT_BYTES_MAX:
        raise PushedManifestInvalid(problem=f"{digest} is too large for a document")
    return data
