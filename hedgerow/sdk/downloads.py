"""Files out of a workspace: several at once, large ones in parallel parts, continued after an interruption.

A large file grows in a hidden ``.NAME.DIGEST.part`` beside its final name. Nothing else is kept about it: when it is continued,
each of its chunks is compared with the hashes that the workspace has (``GET /blobs/DIGEST/chunks``), and only what is wrong or
missing is fetched. A finished file is compared with its digest, then renamed: it is there whole and right, or not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hedgerow.atomic_write import fsync_folder
from hedgerow.contracts.api import BlobChunks
from hedgerow.contracts.model import FileEntry
from hedgerow.sdk.blobs import Blobs, Counted, Progress, Stopped, again, run_all
from hedgerow.sdk.errors import ApiError, DownloadDamaged, NotARegularFile
from hedgerow.sdk.files import place_for
from hedgerow.sdk.transport import CHUNK_BYTES, Transport

# A file of more than this is fetched in parallel parts, and its unfinished part is kept.
LARGE_BYTES = 32 * 1024 * 1024
_PART_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: where the workspace has it, and what it is."""

    address: str
    entry: FileEntry


def download_all(transport: Transport, wanted: Sequence[Wanted], folder: Path, progress: Progress | None = None) -> list[Path]:
    """Fetch all of ``wanted`` below ``folder``; returns their paths in the same order.

    Raises NotARegularFile (a path that leaves the folder), DownloadDamaged, ApiError, ServerUnreachable, OSError. What was
    finished by then stays; an unfinished large file is continued by the next call.
    """
    fetching = _Fetching(transport, Counted(sum(one.entry.size_bytes for one in wanted), progress))
    targets = [place_for(one.entry, folder) for one in wanted]
    pairs = list(zip(wanted, targets, strict=True))
    small = [partial(fetching.small, one, target) for one, target in pairs if one.entry.size_bytes <= LARGE_BYTES]
    run_all(small, fetching.stop)
    for one, target in pairs:
        if one.entry.size_bytes > LARGE_BYTES:
            fetching.large(one, target)
    return targets


class _Fetching:
    def __init__(self, transport: Transport, counted: Counted) -> None:
        self._transport, self._counted = transport, counted
        self.stop = threading.Event()

    def small(self, one: Wanted, target: Path) -> None:
        fd, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
        try:
            if one.entry.size_bytes:
                self._fill(one, fd, 0, one.entry.size_bytes)
            _finish(fd, Path(name), one.entry, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def large(self, one: Wanted, target: Path) -> None:
        part = target.with_name(f".{target.name[:100]}.{one.entry.digest[7:23]}.part")
        fd = _open_part(part)
        if fd is None:  # another process fetches the same file to the same place
            self.small(one, target)
            return
        try:
            missing = list(self._missing(one, fd))
            self._counted.add(one.entry.size_bytes - sum(end - start for start, end in missing))
            run_all([partial(self._fill, one, fd, start, end) for start, end in missing], self.stop)
            _finish(fd, part, one.entry, target)
        except DownloadDamaged:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def _fill(self, one: Wanted, fd: int, start: int, end: int) -> None:
        at = start

        def fetch() -> None:
            nonlocal at
            # After a break the rest only; what is damaged in the workspace is then the first thing asked for, and is told.
            while at < end:
                for piece in self._transport.download_range(one.address, at, end, one.entry.digest):
                    if self.stop.is_set():
                        raise Stopped
                    os.pwrite(fd, piece, at)
                    at += len(piece)
                    self._counted.add(len(piece))

        again(fetch)

    def _missing(self, one: Wanted, fd: int) -> Iterator[tuple[int, int]]:
        """Ranges that are still to be fetched, in parts of at most 16 MiB."""
        size = one.entry.size_bytes
        right = self._right_chunks(one, fd) if os.fstat(fd).st_size else None
        if right is None:
            os.ftruncate(fd, 0)
            right = BlobChunks(digest=one.entry.digest, size_bytes=size, chunk_bytes=_PART_BYTES, hashes=[]), set[int]()
        chunks, done = right
        start: int | None = None
        for number in range(-(-size // chunks.chunk_bytes)):
            at = number * chunks.chunk_bytes
            if number in done or (start is not None and at - start >= _PART_BYTES):
                if start is not None:
                    yield start, at
                start = None
            if number not in done and start is None:
                start = at
        if start is not None:
            yield start, size

    def _right_chunks(self, one: Wanted, fd: int) -> tuple[BlobChunks, set[int]] | None:
        """The chunks of an unfinished file that are right already; None when the workspace does not say what they are."""
        try:
            chunks = Blobs(self._transport).chunks(one.entry.digest)
        except ApiError:
            return None
        if chunks.size_bytes != one.entry.size_bytes or chunks.chunk_bytes <= 0:
            return None
        done = set()
        for number, expected in enumerate(chunks.hashes):
            data = os.pread(fd, chunks.chunk_bytes, number * chunks.chunk_bytes)
            if hashlib.sha256(data).hexdigest() == expected:
                done.add(number)
        return chunks, done


def _open_part(part: Path) -> int | None:
    """Opened and locked; None while another process has it. Raises NotARegularFile."""
    while True:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotARegularFile(path=part, what="not a file")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between our look and our lock another process may have finished it: then it is the file itself.
            if _is_at(part, fd):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _finish(fd: int, temporary: Path, entry: FileEntry, target: Path) -> None:
    """Raises DownloadDamaged."""
    sha, at = hashlib.sha256(), 0
    while piece := os.pread(fd, CHUNK_BYTES, at):
        sha.update(piece)
        at += len(piece)
    if (found := f"sha256:{sha.hexdigest()}") != entry.digest:
        raise DownloadDamaged(path=entry.path, found=found, expected=entry.digest)
    os.fchmod(fd, 0o644)
    os.fsync(fd)
    temporary.replace(target)
    fsync_folder(target.parent)
