"""Blobs in a local folder: ``sha256/ab/ab12…``.

A blob is written to a temporary name, hashed on the way, synced and linked to its final name: it is there whole or not at
all, and a process killed in between leaves only a temporary file that no digest leads to. Its writer holds a lock on it, so
that what a dead one left behind can be told from what is being written.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from hedgerow.atomic_write import fsync_folder
from hedgerow.contracts.names import is_digest
from registry.blobs.errors import BlobUnknown, DigestMismatch, StorageUnavailable
from registry.blobs.hashing import READ_BYTES, Hashed, Readable, VerifiedReader, copy_hashed
from registry.blobs.port import BlobStore, Staged, StoredBlob, Swept

_READ_ONLY = 0o444
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS)


class FolderStore(BlobStore):
    """The adapter for a file system. Nothing is made before the first write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stage(self, stream: Readable, expected_digest: str | None = None) -> Staged:
        if expected_digest is not None:
            self.path(expected_digest)  # one that is none is refused before anything is read
        temporary = Temporary(self._folder / "uploads")
        with temporary.kept_on_success(), temporary.create() as file:
            hashed = copy_hashed(stream, file.write)
            if expected_digest is not None and hashed.digest != expected_digest:
                raise DigestMismatch(found=hashed.digest, expected=expected_digest)
            _seal(file)
            return self._published(temporary, hashed)

    def adopt(self, path: Path, digest: str) -> Staged:
        self.path(digest)
        temporary = Temporary(self._folder / "uploads")
        with temporary.kept_on_success(), temporary.take(path, digest) as file:
            hashed = copy_hashed(file)
            if hashed.digest != digest:
                raise DigestMismatch(found=hashed.digest, expected=digest)
            os.utime(file.fileno())  # published now, however long ago the build wrote it
            _seal(file)
            return self._published(temporary, hashed)

    def open(self, digest: str) -> BinaryIO:
        return io.BufferedReader(VerifiedReader(self._file(digest), digest, self.size(digest)), READ_BYTES)

    def read_at(self, digest: str, start: int, size: int) -> bytes:
        with self._file(digest) as file:
            return os.pread(file.fileno(), size, start)

    def path(self, digest: str) -> Path:
        """Where the blob lies (or would lie). Raises BlobUnknown for what is no digest."""
        # A digest becomes a path here and nowhere else, so here it is checked.
        if not is_digest(digest):
            raise BlobUnknown(digest=digest[:80])
        hexadecimal = digest.removeprefix("sha256:")
        return self._folder / "sha256" / hexadecimal[:2] / hexadecimal

    def size(self, digest: str) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise BlobUnknown(digest=digest) from None

    def delete(self, digests: Sequence[str]) -> None:
        with _disk_trouble_said():
            for digest in digests:
                self.path(digest).unlink(missing_ok=True)

    def stored(self) -> Iterator[StoredBlob]:
        root = self._folder / "sha256"
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            for path in sorted(folder.iterdir()):
                with suppress(FileNotFoundError):
                    seen = path.stat()
                    if is_digest(f"sha256:{path.name}") and stat.S_ISREG(seen.st_mode):
                        yield StoredBlob(f"sha256:{path.name}", seen.st_size, datetime.fromtimestamp(seen.st_mtime, UTC))

    def sweep(self, before: datetime, *, dry_run: bool = False) -> Swept:
        return sweep_temporaries(self._folder / "uploads", before, dry_run=dry_run)

    def _file(self, digest: str) -> BinaryIO:
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise BlobUnknown(digest=digest) from None

    def _published(self, temporary: Temporary, hashed: Hashed) -> Staged:
        target = self.path(hashed.digest)
        temporary.publish(target)

        def republish() -> None:
            if not target.is_file():
                with _disk_trouble_said():
                    temporary.publish(target)

        return Staged(hashed, republish, temporary.remove)


class Temporary:
    """A file below ``folder`` that goes away again; while this object has it, it is locked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / secrets.token_hex(16)
        self._file: BinaryIO | None = None

    def create(self) -> BinaryIO:
        """A new file, locked, to be written."""
        self._folder_made()
        while (file := self._locked(self.path.open("xb"))) is None:
            pass
        return file

    def take(self, source: Path, digest: str) -> BinaryIO:
        """``source`` by hard link, or a copy where links are not possible; locked, to be read. Raises DigestMismatch."""
        self._folder_made()
        while (file := self._locked(self._linked(source, digest))) is None:
            pass
        return file

    def publish(self, target: Path) -> None:
        """Give the content its final name, replacing what has it, and keep the temporary (gone where there are no links)."""
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            fsync_folder(target.parent.parent)
        try:
            os.link(self.path, target)
        except OSError as problem:
            if problem.errno != errno.EEXIST and problem.errno not in _NO_LINKS:
                raise
            self._replace(target)
        fsync_folder(target.parent)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()
            self._file = None

    @contextmanager
    def kept_on_success(self) -> Iterator[None]:
        """Whatever fails inside leaves nothing; OSError becomes StorageUnavailable where it is the disk's."""
        try:
            with _disk_trouble_said():
                yield
        except BaseException:
            self.remove()
            raise

    def _replace(self, target: Path) -> None:
        second = self.path.with_name(f"{self.path.name}.link")
        try:
            os.link(self.path, second)
        except OSError as problem:
            if problem.errno not in _NO_LINKS:
                raise
            second = self.path
        second.replace(target)
        # Nothing moves when both names are the same file already.
        if second != self.path:
            second.unlink(missing_ok=True)

    def _folder_made(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def _linked(self, source: Path, digest: str) -> BinaryIO:
        try:
            os.link(source, self.path, follow_symlinks=False)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, self.path, follow_symlinks=False)
        # Builds run foreign code: what it left behind may be a link to somewhere else.
        if not stat.S_ISREG(self.path.lstat().st_mode):
            raise DigestMismatch(found="nothing, it is not a plain file", expected=digest)
        return self.path.open("rb")

    def _locked(self, file: BinaryIO) -> BinaryIO | None:
        """None when a sweep (of a process whose clock is ahead) took the file before it was locked."""
        # The lock lasts as long as this second descriptor, not only while the content is written.
        self._file = os.fdopen(os.dup(file.fileno()), "rb")
        fcntl.flock(self._file, fcntl.LOCK_SH)
        if self.path.exists():
            return file
        file.close()
        self._file.close()
        return None


def sweep_temporaries(folder: Path, before: datetime, *, dry_run: bool) -> Swept:
    """Remove temporaries that are older than ``before`` and that nobody has locked."""
    count = size_bytes = 0
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            seen = os.fstat(file.fileno())
            if datetime.fromtimestamp(seen.st_mtime, UTC) >= before:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            count += 1
            size_bytes += seen.st_size if seen.st_nlink == 1 else 0
            if not dry_run:
                path.unlink()
    return Swept(count, size_bytes)


def oldest_writer(folder: Path) -> datetime | None:
    """When the first of the uploads began that go on now (their temporaries are locked); None when there is none."""
    began: list[datetime] = []
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        with suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                began.append(datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC))
    return min(began, default=None)


def _seal(file: BinaryIO) -> None:
    file.flush()
    os.fchmod(file.fileno(), _READ_ONLY)
    os.fsync(file.fileno())


@contextmanager
def _disk_trouble_said() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in _DISK:
            raise StorageUnavailable(problem=os.strerror(problem.errno or 0)) from problem
        raise
