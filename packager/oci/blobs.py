"""Content-addressed files (`blobs/sha256/HEX`): the cache has such a folder, and so has every OCI layout.

A blob is written under a temporary name and renamed when its digest is known: a reader sees all of it or nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.names import is_digest
from packager.errors import BlobCorrupt, DiskFull, FolderNotWritable

CHUNK_BYTES = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_HEX_DIGITS = 64
# Manifests, indexes and configs: the specification allows registries to refuse more than 4 MiB.
DOCUMENT_BYTES_MAX = 16 << 20


@dataclass(frozen=True)
class Blob:
    """Bytes by their digest (`sha256:…`)."""

    digest: str
    size_bytes: int


def disk_error(problem: OSError, path: Path) -> Exception:
    """What a failed write to ``path`` means: DiskFull, FolderNotWritable (also what can be no folder), or ``problem`` itself."""
    if problem.errno in _FULL:
        return DiskFull(path=path)
    return FolderNotWritable(path=path) if problem.errno in _CLOSED else problem


def file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


class BlobFolder:
    """``folder`` is the root that has `blobs/sha256` below it; temporary files stand in ``scratch`` (same file system)."""

    def __init__(self, folder: Path, scratch: Path | None = None) -> None:
        self.folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._scratch = scratch or self._blobs

    def path(self, digest: str) -> Path:
        """Where the blob stands or would stand. Raises BlobCorrupt for what is no digest: it may come from a foreign file."""
        if not is_digest(digest):
            raise BlobCorrupt(digest=repr(digest), where=self.folder)
        return self._blobs / digest.removeprefix("sha256:")

    def read(self, digest: str) -> bytes:
        """The whole blob, for documents. Raises BlobCorrupt when it is missing, is something else or is too large for one."""
        try:
            with self.path(digest).open("rb") as file:
                data = file.read(DOCUMENT_BYTES_MAX + 1)
        except (FileNotFoundError, IsADirectoryError):
            data = b""
        # The very bytes that were hashed are those that are given out.
        if len(data) > DOCUMENT_BYTES_MAX or _digest_of_chunks([data]) != digest:
            raise BlobCorrupt(digest=digest, where=self.folder)
        return data

    def holds(self, digest: str) -> bool:
        """Whether the blob is here with the right content; hashing costs less than one wrong image."""
        try:
            return _digest_of_chunks(file_chunks(self.path(digest))) == digest
        except FileNotFoundError:
            return False

    def stored(self) -> Iterator[Path]:
        """The files of all blobs."""
        if self._blobs.is_dir():
            yield from (path for path in self._blobs.iterdir() if len(path.name) == _HEX_DIGITS)

    def digests(self) -> tuple[str, ...]:
        """The digests of all blobs, sorted."""
        return tuple(sorted(f"sha256:{path.name}" for path in self.stored()))

    def add(self, chunks: Iterable[bytes], *, expected: str | None = None, where: object = "") -> Blob:
        """Store the bytes of ``chunks`` in one pass. Raises BlobCorrupt unless they have the ``expected`` digest."""
        hasher, size = hashlib.sha256(), 0
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            fd, temporary = tempfile.mkstemp(dir=self._scratch, prefix=".", suffix=".tmp")
        except OSError as problem:
            raise disk_error(problem, self._blobs) from problem
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                for chunk in chunks:
                    hasher.update(chunk)
                    size += len(chunk)
                    _write_all(file.fileno(), chunk, self._blobs)
                os.fchmod(file.fileno(), 0o444)
            digest = "sha256:" + hasher.hexdigest()
            if expected is not None and digest != expected:
                raise BlobCorrupt(digest=expected, where=where)
            Path(temporary).replace(self.path(digest))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return Blob(digest, size)

    def take(self, source: BlobFolder, digest: str) -> Blob:
        """Have ``digest`` here too: a hard link where the file system allows one, else a checked copy."""
        target = self.path(digest)
        if not target.exists():
            self._blobs.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source.path(digest), target)
            except OSError:
                return self.add(file_chunks(source.path(digest)), expected=digest, where=source.folder)
        return Blob(digest, target.stat().st_size)


def _write_all(fd: int, chunk: bytes, where: Path) -> None:
    view = memoryview(chunk)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as problem:
        raise disk_error(problem, where) from problem


def _digest_of_chunks(chunks: Iterable[bytes]) -> str:
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return "sha256:" + hasher.hexdigest()
