"""Files on their way into and out of a workspace: what lies under a path, its digests, safe downloads."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from hedgerow.atomic_write import fsync_folder
from hedgerow.contracts.document import convert
from hedgerow.contracts.model import FileEntry
from hedgerow.sdk.errors import DownloadDamaged, FileChanged, FileNamesCollide, NotARegularFile, NothingToRegister
from hedgerow.sdk.transport import CHUNK_BYTES

_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_HASHERS = 4
_NEVER = {".git", "__pycache__", ".venv", ".ipynb_checkpoints"}


@dataclass(frozen=True)
class FileState:
    """By what a change shows: which file it is, its size in bytes, when it was last written (ns)."""

    device: int
    inode: int
    size_bytes: int
    written_ns: int

    @classmethod
    def of(cls, file: BinaryIO) -> FileState:
        found = os.fstat(file.fileno())
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class LocalFile:
    """A file here, the name it gets inside the model or snapshot, and its state when it was hashed."""

    source: Path
    entry: FileEntry
    seen: FileState


def collect(paths: Iterable[Path]) -> list[LocalFile]:
    """Files under ``paths``, sorted: a file keeps its name, a folder gives its tree.

    Raises NotARegularFile, NothingToRegister, FileNamesCollide, FileChanged, OSError (missing, unreadable).
    """
    found: dict[str, Path] = {}
    for path in paths:
        here = {name: source for source, name in _walk(path)}
        if not here:
            raise NothingToRegister(path=path)
        if same := sorted(here.keys() & found.keys()):
            raise FileNamesCollide(first=found[same[0]], second=here[same[0]], name=same[0])
        found |= here
    names = sorted(found)
    with ThreadPoolExecutor(_HASHERS, "hedgerow-hash") as pool:
        try:
            return list(pool.map(_hashed, [found[name] for name in names], names))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_again(file: LocalFile) -> Iterator[bytes]:
    """The content that was hashed, in pieces. Raises FileChanged before the last one when the file is another one by now."""
    with _opened(file.source) as stream:
        if FileState.of(stream) != file.seen:
            raise FileChanged(path=file.source)
        left = file.entry.size_bytes
        while left and (piece := stream.read(min(CHUNK_BYTES, left))):
            left -= len(piece)
            # Before the last piece leaves: what was announced is then never complete.
            if not left and FileState.of(stream) != file.seen:
                raise FileChanged(path=file.source)
            yield piece
        if left:
            raise FileChanged(path=file.source)


def save(chunks: Iterable[bytes], entry: FileEntry, folder: Path) -> Path:
    """Write a download to ``folder/entry.path``: verified, whole or not there. Raises DownloadDamaged."""
    target = place_for(entry, folder)
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
            raise DownloadDamaged(path=entry.path, found=found, expected=entry.digest)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)
    return target


def place_for(entry: FileEntry, folder: Path) -> Path:
    """Where a download goes; its folders are made. Raises NotARegularFile for a path that leaves ``folder``, also by a link."""
    target = folder / entry.path
    if not target.resolve().is_relative_to(folder.resolve()):
        raise NotARegularFile(path=entry.path, what="a path that leaves its folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _hashed(source: Path, name: str) -> LocalFile:
    sha, size = hashlib.sha256(), 0
    with _opened(source) as file:
        seen = FileState.of(file)
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
            size += len(chunk)
        if FileState.of(file) != seen or size != seen.size_bytes:
            raise FileChanged(path=source)
    return LocalFile(source, convert({"path": name, "digest": f"sha256:{sha.hexdigest()}", "size_bytes": size}, FileEntry), seen)


def _opened(source: Path) -> BinaryIO:
    """Raises NotARegularFile: what was a file when it was looked at may be a FIFO now, which would never give an end."""
    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise NotARegularFile(path=source, what=_KINDS.get(stat.S_IFMT(mode), "not a file"))
    return os.fdopen(fd, "rb")


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
    name = str(source.relative_to(root))
    if any("\ud800" <= character <= "\udfff" for character in name):  # bytes that are no UTF-8
        raise NotARegularFile(path=repr(str(source)), what="a file whose name is not UTF-8")
    if any(character < " " or character == "\\" for character in name):
        raise NotARegularFile(path=repr(str(source)), what="a file whose name holds a control character or a backslash")
    return source
