"""Takes in what foreign code left in a folder. Only regular files are read, and no link is followed, on the way or at the end."""

from __future__ import annotations

import os
import stat

import msgspec

from hedgerow.contracts.model import FileEntry, RelativePath
from registry.blobs import BlobStore
from registry.controller.file_work.tasks import Collect, Collected

_MOST_FILES = 100_000
_MOST_LINES = 50


class _Path(msgspec.Struct):
    path: RelativePath


def collect(task: Collect, store: BlobStore) -> Collected:
    """Raises StorageUnavailable, OSError. A folder that is not there is an empty one."""
    files: list[FileEntry] = []
    left_out: list[str] = []
    hashes: dict[str, bytes] = {}
    if not os.path.lexists(task.folder):
        return Collected(files=files, left_out=left_out)
    # By descriptors all the way: a folder cannot be exchanged for a link between look and use.
    for folder, folders, names, fd in os.fwalk(task.folder, follow_symlinks=False):
        inside = os.path.relpath(folder, task.folder)
        for name in sorted(names + [name for name in folders if _is_link(name, fd)]):
            path = name if inside == "." else f"{inside}/{name}"
            problem = _problem_with(path) or ("there are too many files" if len(files) >= _MOST_FILES else "")
            entry = None if problem else _take(path, name, fd, store, hashes)
            if entry is None:
                left_out.append(f"{path!a}: {problem or 'not a regular file'}")
            else:
                files.append(entry)
    if len(left_out) > _MOST_LINES:
        left_out[_MOST_LINES:] = [f"and {len(left_out) - _MOST_LINES} more"]
    return Collected(files=files, left_out=left_out, chunk_hashes=hashes)


def _take(path: str, name: str, fd: int, store: BlobStore, hashes: dict[str, bytes]) -> FileEntry | None:
    try:
        # O_NONBLOCK: opening a FIFO would wait for a writer that never comes.
        file_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        return None
    with open(file_fd, "rb") as file:  # noqa: PTH123 - by descriptor
        if not stat.S_ISREG(os.fstat(file_fd).st_mode):
            return None
        # A copy, not a link: foreign code may still hold the file open.
        with store.stage(file) as staged:
            if staged.chunks is not None:
                hashes[staged.digest] = staged.chunks.hashes
    return FileEntry(path=path, digest=staged.digest, size_bytes=staged.size_bytes)


def _is_link(name: str, fd: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)


def _problem_with(path: str) -> str:
    try:
        path.encode()
        msgspec.convert({"path": path}, type=_Path)
    except (UnicodeEncodeError, msgspec.ValidationError):
        return "its name is not one that can be stored"
    return ""
