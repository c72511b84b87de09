"""Content by digest, in the workspace's ``blobs`` folder: ``sha256/ab/ab12…``.

A blob is written to a temporary name, hashed on the way, synced and renamed: it is there whole or not at all, and a
process killed in between leaves only a temporary file that no digest leads to. What is read is hashed again, and the
last bytes are given out only when the whole was right.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from hedgerow.atomic_write import fsync_folder
from hedgerow.contracts.names import is_digest
from registry.errors import BlobDamaged, BlobUnknown, DigestMismatch, StorageUnavailable

CHUNK_BYTES = 1024 * 1024
_READ_ONLY = 0o444


class Readable(Protocol):
    """Anything that content can be read from."""

    def read(self, size: int, /) -> bytes: ...


class BlobStore:
    """Blobs in a local folder. All methods may be called from many threads and processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, stream: Readable, expected_digest: str | None = None) -> tuple[str, int]:
        """Store what ``stream`` gives until its end; returns digest and size in bytes. Durable on return.

        Memory stays at one chunk. Content that was there already is replaced by the same, which also mends damage.
        Raises DigestMismatch (nothing stored), StorageUnavailable (full disk).
        """
        with self._temporary() as temporary:
            with temporary.open("wb") as file:
                digest, size = _copy_hashed(stream, file)
                if expected_digest is not None and digest != expected_digest:
                    raise DigestMismatch(found=digest, expected=expected_digest)
                _seal(file)
            self._publish(temporary, digest)
        return digest, size

    def adopt(self, path: Path, digest: str) -> int:
        """Take a finished file (made by a build) in as ``digest``, by hard link where possible; returns its size.

        The file is checked first and must not be written to afterwards. Raises DigestMismatch, StorageUnavailable.
        """
        with self._temporary() as temporary:
            try:
                os.link(path, temporary, follow_symlinks=False)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, temporary, follow_symlinks=False)
            # Builds run foreign code: what it left behind may be a link to somewhere else.
            if not stat.S_ISREG(temporary.lstat().st_mode):
                raise DigestMismatch(found="nothing, it is not a plain file", expected=digest)
            with temporary.open("rb") as file:
                found, size = _copy_hashed(file, None)
                if found != digest:
                    raise DigestMismatch(found=found, expected=digest)
                _seal(file)
            self._publish(temporary, digest)
        return size

    def open(self, digest: str) -> BinaryIO:
        """A stream over the blob that raises BlobDamaged in place of its last bytes when the content is not right.

        Raises BlobUnknown.
        """
        return io.BufferedReader(_VerifiedReader(self._file(digest), digest, self.size(digest)), CHUNK_BYTES)

    def open_unverified(self, digest: str) -> BinaryIO:
        """For ranges: the part alone proves nothing, whoever puts the parts together checks the whole."""
        return self._file(digest)

    def path(self, digest: str) -> Path:
        """Where the blob lies (or would lie)."""
        # A digest becomes a path here and nowhere else, so here it is checked.
        if not is_digest(digest):
            raise BlobUnknown(digest=digest[:80])
        hexadecimal = digest.removeprefix("sha256:")
        return self._folder / "sha256" / hexadecimal[:2] / hexadecimal

    def has(self, digest: str) -> bool:
        return is_digest(digest) and self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """In bytes. Raises BlobUnknown."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise BlobUnknown(digest=digest) from None

    def _file(self, digest: str) -> BinaryIO:
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise BlobUnknown(digest=digest) from None

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A name in the same file system that is gone afterwards, whatever happens. OSError becomes StorageUnavailable."""
        uploads = self._folder / "uploads"
        temporary = uploads / secrets.token_hex(16)
        try:
            uploads.mkdir(parents=True, exist_ok=True)
            yield temporary
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES):
                raise StorageUnavailable(problem=os.strerror(problem.errno)) from problem
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def _publish(self, temporary: Path, digest: str) -> None:
        target = self.path(digest)
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            fsync_folder(target.parent.parent)
        temporary.replace(target)
        fsync_folder(target.parent)


def _copy_hashed(source: Readable, target: BinaryIO | None) -> tuple[str, int]:
    sha, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        sha.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return f"sha256:{sha.hexdigest()}", size


def _seal(file: BinaryIO) -> None:
    file.flush()
    os.fchmod(file.fileno(), _READ_ONLY)
    os.fsync(file.fileno())


class _VerifiedReader(io.RawIOBase):
    def __init__(self, file: BinaryIO, digest: str, size: int) -> None:
        self._file, self._digest, self._left, self._sha = file, digest, size, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # RawIOBase only ever hands out memoryviews
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]  # files opened "rb" have it, BinaryIO does not say so
        self._sha.update(buffer[:count])
        self._left -= count
        if self._left <= 0 or count == 0:
            self._check()
        return int(count)

    def _check(self) -> None:
        found = f"sha256:{self._sha.hexdigest()}"
        if found != self._digest:
            raise BlobDamaged(digest=self._digest, found=found)

    def close(self) -> None:
        self._file.close()
        super().close()
