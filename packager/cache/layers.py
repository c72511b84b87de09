"""Layers and locks that were made once and are good for every later build, shared by all images of a workspace.

`blobs/sha256/` holds bytes, `records/KIND/KEY.json` says what they are the answer to. A key is the digest of everything
that decides the answer. Both are written under temporary names and renamed; a record whose blob is missing or damaged
counts as absent, so the cache heals itself and several builds may share it. A blob is hashed again when its file is not the
one that was hashed last (inode, size, time of change); when that record was touched last is when the blob was last used.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.document import digest_of
from packager.oci.blobs import BlobFolder, disk_error

log = logging.getLogger(__name__)
T = TypeVar("T")
_CHECKED = "checked"
_IN_USE_S = 86_400


@dataclass(frozen=True)
class _Seen:
    """The file that had a blob's content when it was hashed."""

    inode: int
    size_bytes: int
    changed_at_ns: int


@dataclass(frozen=True)
class _Aged:
    path: Path
    size_bytes: int
    used_at_s: float


class LayerCache:
    """A cache in ``folder``; ``scratch`` is the build's own temporary folder on the same file system."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = folder
        self.scratch = scratch
        self.blobs = BlobFolder(folder, scratch)
        _close(folder)

    def holds(self, digest: str) -> bool:
        """Whether the blob is here and is what its digest says. Counts as a use of it."""
        mark = self._path(_CHECKED, digest)
        try:
            found = self.blobs.path(digest).stat()
        except FileNotFoundError:
            return False
        if self.find(_CHECKED, digest, _Seen) == _Seen(found.st_ino, found.st_size, found.st_mtime_ns):
            os.utime(mark)
            return True
        if not self.blobs.holds(digest):
            return False
        self.note(digest)
        return True

    def note(self, digest: str) -> None:
        """The blob was hashed a moment ago, while it was written: what :meth:`holds` would find out by reading it again."""
        found = self.blobs.path(digest).stat()
        self.keep(_CHECKED, digest, _Seen(found.st_ino, found.st_size, found.st_mtime_ns))

    def prune(self, limit_bytes: int, now: datetime) -> int:
        """Remove the blobs used longest ago until at most ``limit_bytes`` are left; returns the bytes that went.

        What another build may be using (touched within the last day) stays, whatever the limit.
        """
        files = [_Aged(path, path.stat().st_size, self._used_at(path)) for path in self.blobs.stored()]
        excess = sum(file.size_bytes for file in files) - limit_bytes
        gone = 0
        for file in sorted(files, key=lambda one: one.used_at_s):
            if gone >= excess or now.timestamp() - file.used_at_s < _IN_USE_S:
                break
            file.path.unlink(missing_ok=True)
            self._path(_CHECKED, file.path.name).unlink(missing_ok=True)
            gone += file.size_bytes
        return gone

    def _used_at(self, blob: Path) -> float:
        try:
            return self._path(_CHECKED, blob.name).stat().st_mtime
        except FileNotFoundError:
            return blob.stat().st_mtime

    def find(self, kind: str, key: str, answer_type: type[T]) -> T | None:
        """What :meth:`keep` stored for the key, or None. Blobs that the answer names are the caller's to check."""
        path = self._path(kind, key)
        try:
            return msgspec.json.decode(path.read_bytes(), type=answer_type)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, msgspec.ValidationError) as problem:
            log.warning("cache record %s is not readable and is made again: %s", path, problem)
            return None

    def keep(self, kind: str, key: str, answer: object) -> None:
        path = self._path(kind, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, msgspec.json.encode(answer, order="sorted"))
        except OSError as problem:
            raise disk_error(problem, path) from problem

    def record(self, kind: str, key: str, answer: object) -> tuple[Path, str]:
        """Where :meth:`keep` writes the answer, and the digest of what it writes."""
        return self._path(kind, key), digest_of(msgspec.json.encode(answer, order="sorted"))

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / "records" / kind / f"{key.removeprefix('sha256:')}.json"


def _close(folder: Path) -> None:
    """Foreign code that is tested passes through the cache (verify/sandbox.py), and other people's models lie in it."""
    try:
        for place in (folder / "blobs", folder / "records"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = place.stat()
            if facts.st_mode & 0o077 and facts.st_uid == os.geteuid():
                place.chmod(0o700)
    except OSError as problem:
        raise disk_error(problem, folder) from problem


def cache_key(*parts: object) -> str:
    """Digest of the parts' canonical JSON."""
    return digest_of(msgspec.json.encode(parts, order="sorted"))
