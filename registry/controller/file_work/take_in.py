"""Stores the blobs of a finished OCI layout: all that its manifest (or index) and its referrers lead to.

Each is checked against its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from hedgerow.contracts.names import MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST, Digest, is_digest
from registry.blobs import BlobStore
from registry.controller.errors import LayoutBroken
from registry.controller.file_work.tasks import Part, Parts, TakeIn

_DOCUMENT_BYTES_MAX = 8 << 20


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    digest: Digest
    size: int


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """A manifest (config and layers) or an index (manifests)."""

    config: _Descriptor | None = None
    layers: list[_Descriptor] = []
    manifests: list[_Descriptor] = []


def take_in(task: TakeIn, store: BlobStore, report: Callable[[float], None]) -> Parts:
    """Raises LayoutBroken, DigestMismatch, StorageUnavailable. What was stored before a failure stays: it is only content."""
    blobs = Path(task.layout) / "blobs" / "sha256"
    tops = [_top(blobs, task.digest, task.media_type)]
    tops += [_top(blobs, digest, MEDIA_OCI_MANIFEST) for digest in task.referrers]
    wanted = {descriptor.digest: descriptor for top in tops for descriptor in _reachable(blobs, top)}
    total = sum(descriptor.size for descriptor in wanted.values()) or 1
    done = 0
    parts: list[Part] = []
    for digest, descriptor in wanted.items():
        with store.adopt(_path(blobs, digest), digest) as staged:
            size, chunks = staged.size_bytes, staged.chunks
        hashes = chunks.hashes if chunks is not None else b""
        parts.append(Part(digest=digest, media_type=descriptor.media_type, size_bytes=size, chunk_hashes=hashes))
        done += size
        report(min(1.0, done / total))
    return Parts(parts=parts)


def _top(blobs: Path, digest: str, media_type: str) -> _Descriptor:
    return _Descriptor(media_type, digest, _path(blobs, digest).stat().st_size)


def _reachable(blobs: Path, descriptor: _Descriptor) -> Iterator[_Descriptor]:
    yield descriptor
    if descriptor.media_type not in (MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST):
        return
    document = _read(_path(blobs, descriptor.digest))
    for below in (*document.manifests, *([document.config] if document.config else []), *document.layers):
        yield from _reachable(blobs, below)


def _read(path: Path) -> _Document:
    if path.stat().st_size > _DOCUMENT_BYTES_MAX:
        raise LayoutBroken(problem=f"{path.name} is too large for a manifest")
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Document)
    except (msgspec.DecodeError, msgspec.ValidationError) as problem:
        raise LayoutBroken(problem=f"{path.name} is no manifest ({problem})") from problem


def _path(blobs: Path, digest: str) -> Path:
    if not is_digest(digest):
        raise LayoutBroken(problem=f"{digest[:80]!r} is no digest")
    path = blobs / digest.removeprefix("sha256:")
    if not path.is_file():
        raise LayoutBroken(problem=f"blob {digest} is not in it")
    return path
