"""Stores the blobs of a finished OCI layout: all that its manifest (or index) and its referrers lead to.

Each is checked against its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from hedgerow.contracts.names import MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST, is_digest
from hedgerow.contracts.oci import Descriptor, ImageDocument, read_image_document
from registry.blobs import BlobStore
from registry.blobs.errors import BlobUnknown
from registry.controller.errors import LayoutBroken
from registry.controller.file_work.tasks import Part, Parts, TakeIn

_DOCUMENT_BYTES_MAX = 8 << 20


def take_in(task: TakeIn, store: BlobStore, report: Callable[[float], None]) -> Parts:
    """Raises LayoutBroken, DigestMismatch, StorageUnavailable. What was stored before a failure stays: it is only content."""
    wanted = _wanted(task)
    total = sum(descriptor.size for descriptor in wanted.values()) or 1
    done = 0
    parts: list[Part] = []
    known = frozenset(task.known)
    for descriptor in wanted.values():
        skipped = descriptor.digest in known and _stands(descriptor, store)
        part = _part(descriptor, descriptor.size) if skipped else _taken(descriptor, task, store)
        parts.append(part)
        done += part.size_bytes
        report(min(1.0, done / total))
    return Parts(parts=parts)


def sizes_of(task: TakeIn) -> Mapping[str, int]:
    """Digests of everything that would be stored, with what the layout says of their sizes. Raises LayoutBroken, OSError."""
    return {digest: descriptor.size for digest, descriptor in _wanted(task).items()}


def _wanted(task: TakeIn) -> dict[str, Descriptor]:
    blobs = _blobs(task)
    tops = [_top(blobs, task.digest, task.media_type)]
    tops += [_top(blobs, digest, MEDIA_OCI_MANIFEST) for digest in task.referrers]
    return {descriptor.digest: descriptor for top in tops for descriptor in _reachable(blobs, top)}


def _stands(descriptor: Descriptor, store: BlobStore) -> bool:
    """Whether nothing need be done: what leads to other blobs was read, so it is always checked."""
    if descriptor.media_type in (MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST):
        return False
    with suppress(BlobUnknown):
        return store.size(descriptor.digest) == descriptor.size
    return False


def _taken(descriptor: Descriptor, task: TakeIn, store: BlobStore) -> Part:
    with store.adopt(_path(_blobs(task), descriptor.digest), descriptor.digest) as staged:
        hashes = staged.chunks.hashes if staged.chunks is not None else b""
        return _part(descriptor, staged.size_bytes, hashes)


def _part(descriptor: Descriptor, size_bytes: int, hashes: bytes = b"") -> Part:
    return Part(digest=descriptor.digest, media_type=descriptor.media_type, size_bytes=size_bytes, chunk_hashes=hashes)


def _blobs(task: TakeIn) -> Path:
    return Path(task.layout) / "blobs" / "sha256"


def _top(blobs: Path, digest: str, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=digest, size=_path(blobs, digest).stat().st_size)


def _reachable(blobs: Path, descriptor: Descriptor) -> Iterator[Descriptor]:
    yield descriptor
    if descriptor.media_type not in (MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST):
        return
    for below in _read(_path(blobs, descriptor.digest)).below:
        yield from _reachable(blobs, below)


def _read(path: Path) -> ImageDocument:
    if path.stat().st_size > _DOCUMENT_BYTES_MAX:
        raise LayoutBroken(problem=f"{path.name} is too large for a manifest")
    try:
        return read_image_document(path.read_bytes())
    except ValueError as problem:
        raise LayoutBroken(problem=f"{path.name} is no manifest ({problem})") from problem


def _path(blobs: Path, digest: str) -> Path:
    if not is_digest(digest):
        raise LayoutBroken(problem=f"{digest[:80]!r} is no digest")
    path = blobs / digest.removeprefix("sha256:")
    if not path.is_file():
        raise LayoutBroken(problem=f"blob {digest} is not in it")
    return path
