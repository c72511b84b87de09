"""Files on their way into and out of a workspace: what lies under a path, its digests, safe downloads."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hedgerow.atomic_write import fsync_folder
from hedgerow.contracts.document import convert
from hedgerow.contracts.model import FileEntry
from hedgerow.sdk.errors import FileChanged, NotARegularFile, NothingToRegister
from hedgerow.sdk.transport import CHUNK_BYTES

_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_NEVER = {".git", "__pycache__", ".venv", ".ipynb_checkpoints"}


@dataclass(frozen=True)
class LocalFile:
    """A file here, and the name it gets inside the model or snapshot."""

    source: Path
    entry: FileEntry


def collect(paths: Iterable[Path]) -> list[LocalFile]:
    """Files under ``paths``: a file keeps its name, a folder gives its tree. Sorted; duplicates are an error of the caller's
    paths and the later one wins. Raises NotARegularFile, NothingToRegister, OSError (missing file)."""
    found: dict[str, LocalFile] = {}
    for path in paths:
        before = len(found)
        for source, name in _walk(path):
            found[name] = LocalFile(source, entry_of(source, name))
        if len(found) == before:
            raise NothingToRegister(path=path)
    return [found[name] for name in sorted(found)]


def entry_of(source: Path, name: str) -> FileEntry:
    """Hash one file; the name is checked by the contract."""
    sha, size = hashlib.sha256(), 0
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
            size += len(chunk)
    return convert({"path": name, "digest": f"sha256:{sha.hexdigest()}", "size_bytes": size}, FileEntry)


def save(chunks: Iterable[bytes], entry: FileEntry, folder: Path) -> Path:
    """Write a download to ``folder/entry.path``: verified, whole or not there. Raises FileChanged."""
    target = folder / entry.path
    if not target.resolve().is_relative_to(folder.resolve()):
        raise NotARegularFile(path=entry.path, what="a path that leaves its folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    sha = hashlib.sha256()
    fd, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    try:
        with os.fdopen(fd, "wb") as file:
            for chunk in chunks:
                sha.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if (found := f"sha256:{sha.hexdigest()}") != entry.digest:
            raise FileChanged(path=entry.path, found=found, expected=entry.digest)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)
    return target


def _walk(path: Path) -> Iterator[tuple[Path, str]]:
    if not path.is_dir():
        yield _checked(path, path.parent), path.name
        return
    # What cannot be looked into must not be left out in silence: the model would lack it.
    for folder, folders, names in os.walk(path, onerror=_raise):
        folders[:] = sorted(name for name in folders if name not in _NEVER)
        for name in folders:
            if Path(folder, name).is_symlink():
                raise NotARegularFile(path=Path(folder, name), what="a link to a folder")
        for name in sorted(names):
            source = Path(folder, name)
            yield _checked(source, path), source.relative_to(path).as_posix()


def _raise(problem: OSError) -> NoReturn:
    raise problem


def _checked(source: Path, root: Path) -> Path:
    mode = source.stat().st_mode  # follows links, raises FileNotFoundError for a dangling one
    if not stat.S_ISREG(mode):
        raise NotARegularFile(path=source, what=_KINDS.get(stat.S_IFMT(mode), "not a file"))
    if source.is_symlink() and not source.resolve().is_relative_to(root.resolve()):
        raise NotARegularFile(path=source, what="a link that leaves the folder")
    if any("\ud800" <= character <= "\udfff" for character in str(source.relative_to(root))):  # bytes that are no UTF-8
        raise NotARegularFile(path=repr(str(source)), what="a file whose name is not UTF-8")
    return source
