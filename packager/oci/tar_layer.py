"""Turns entries into the bytes of a deterministic tar, and those into a layer.

The bytes depend on names, contents and the executable bit alone: entries sorted, folders explicit, time 0, owner 0,
modes 0644 and 0755. Files are read once, in chunks; one that changes while it is read is an error.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.build_report import LayerFile
from hedgerow.contracts.model import FileEntry, digest_of_files
from hedgerow.errors import Bug
from hedgerow.tar_headers import END_OF_TAR, padding
from packager.errors import PackedFileChanged, SpecialFile, UnreadableFile
from packager.oci.blobs import CHUNK_BYTES, BlobFolder
from packager.oci.compress import is_packed, packed

# Part of every cache key: raise it whenever the bytes of a layer change for the same content.
TAR_GENERATION = 1


@dataclass(frozen=True)
class DiskEntry:
    """A file that is read when the layer is written; ``size_bytes`` is what it had when it was listed."""

    path: str
    source: Path
    size_bytes: int
    executable: bool = False


@dataclass(frozen=True)
class DataEntry:
    """A file whose bytes are known already."""

    path: str
    data: bytes


Entry = DiskEntry | DataEntry
# Called with path, `sha256:…` and size of each file once it was read.
FileSeen = Callable[[str, str, int], None]


@dataclass(frozen=True)
class StoredLayer:
    """A layer in a blob folder. ``diff_id`` is the digest of the uncompressed tar."""

    purpose: str
    media_type: str
    digest: str
    diff_id: str
    size_bytes: int


@dataclass(frozen=True)
class MadeLayer:
    """A layer of our own with what decided its bytes (by name) and its files: what a BuildReport says of it."""

    stored: StoredLayer
    made_of: dict[str, str]
    files: tuple[LayerFile, ...]


def write_layer(blobs: BlobFolder, purpose: str, media_type: str, chunks: Iterable[bytes]) -> StoredLayer:
    """Store a tar as a layer, packed as ``media_type`` says."""
    plain = hashlib.sha256()
    if not is_packed(media_type):
        blob = blobs.add(chunks)
        return StoredLayer(purpose, media_type, blob.digest, blob.digest, blob.size_bytes)
    blob = blobs.add(packed(media_type, chunks, plain.update))
    return StoredLayer(purpose, media_type, blob.digest, "sha256:" + plain.hexdigest(), blob.size_bytes)


def tar_chunks(entries: Iterable[Entry], seen: FileSeen | None = None) -> Iterator[bytes]:
    """The tar of ``entries``. Raises PackedFileChanged, UnreadableFile, SpecialFile; Bug for one path given twice."""
    ready: set[str] = set()
    for entry in sorted(entries, key=lambda item: item.path.split("/")):
        if entry.path in ready:
            raise Bug(what=f"two entries {entry.path!r} in one layer")
        yield from _folders(entry.path, ready)
        ready.add(entry.path)
        if isinstance(entry, DataEntry):
            yield from _member(entry.path, len(entry.data), 0o644, iter([entry.data]))
            _tell(seen, entry.path, hashlib.sha256(entry.data).hexdigest(), len(entry.data))
        else:
            yield from _disk_member(entry, seen)
    yield END_OF_TAR


def content_digest(entries: Iterable[Entry], prefix: str) -> str:
    """What :func:`digest_below` will say of the layer of ``entries``; reads the files. Raises as :func:`tar_chunks`."""
    files: list[FileEntry] = []

    def seen(path: str, digest: str, size_bytes: int) -> None:
        files.append(FileEntry(path=path, digest=digest, size_bytes=size_bytes))

    for _ in tar_chunks(entries, seen):
        pass
    return digest_below(prefix, files)


def digest_below(prefix: str, files: Iterable[FileEntry]) -> str:
    """Content digest of the files below ``prefix``, as if that were their folder."""
    return digest_of_files(
        FileEntry(path=file.path.removeprefix(prefix), digest=file.digest, size_bytes=file.size_bytes)
        for file in files
        if file.path.startswith(prefix)
    )


def _folders(path: str, ready: set[str]) -> Iterator[bytes]:
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        if folder not in ready:
            ready.add(folder)
            yield _header(folder, 0, 0o755, tarfile.DIRTYPE)


def _disk_member(entry: DiskEntry, seen: FileSeen | None) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    mode = 0o755 if entry.executable else 0o644
    yield from _member(entry.path, entry.size_bytes, mode, _read_unchanged(entry, hasher.update))
    _tell(seen, entry.path, hasher.hexdigest(), entry.size_bytes)


def _read_unchanged(entry: DiskEntry, update: Callable[[bytes], None]) -> Iterator[bytes]:
    # O_NOFOLLOW and O_NONBLOCK: what was a file when listed may have been swapped for a link or a pipe since.
    try:
        fd = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise UnreadableFile(path=entry.source, problem=problem.strerror) from problem
    with os.fdopen(fd, "rb", buffering=0) as file:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise SpecialFile(path=entry.source, what="special file")
        left = entry.size_bytes
        while chunk := file.read(min(CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            update(chunk)
            yield chunk
        after = os.fstat(fd)
    if left != 0 or (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise PackedFileChanged(path=entry.source)


def _member(path: str, size_bytes: int, mode: int, content: Iterator[bytes]) -> Iterator[bytes]:
    yield _header(path, size_bytes, mode, tarfile.REGTYPE)
    yield from content
    yield padding(size_bytes)


def _header(path: str, size_bytes: int, mode: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.type = size_bytes, mode, kind
    # A pax record appears only for a name or size that a plain header cannot hold; times are never in it.
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _tell(seen: FileSeen | None, path: str, hexdigest: str, size_bytes: int) -> None:
    if seen is not None:
        seen(path, "sha256:" + hexdigest, size_bytes)
