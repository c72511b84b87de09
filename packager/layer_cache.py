"""Layers and locks that were made once and are good for every later build, shared by all images of a workspace.

`blobs/sha256/` holds bytes, `records/KIND/KEY.json` says what they are the answer to. A key is the digest of everything
that decides the answer. Both are written under temporary names and renamed; a record whose blob is missing or damaged
counts as absent, so the cache heals itself and several builds may share it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.document import digest_of
from packager.blobs import BlobFolder, disk_error

log = logging.getLogger(__name__)
T = TypeVar("T")


class LayerCache:
    """A cache in ``folder``; ``scratch`` is the build's own temporary folder on the same file system."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = folder
        self.scratch = scratch
        self.blobs = BlobFolder(folder, scratch)

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

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / "records" / kind / f"{key.removeprefix('sha256:')}.json"


def cache_key(*parts: object) -> str:
    """Digest of the parts' canonical JSON."""
    return digest_of(msgspec.json.encode(parts, order="sorted"))
