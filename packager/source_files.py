"""Lists the files of a model or source folder, and refuses what must not enter an image.

Answers come sorted by path, whatever the order on disk. `oci/tar_layer.py` reads the files later and notices when one changed
in between; here only small ones are opened, in search of secrets (hedgerow/contracts/secret_files.py).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.contracts.model import RelativePath
from hedgerow.contracts.secret_files import (
    SEARCHED_BYTES_MAX,
    SecretInSource,
    is_left_out,
    secret_by_content,
    secret_by_name,
)
from packager.errors import (
    LinkOutside,
    ReservedName,
    ScriptNotFound,
    SpecialFile,
    UnreadableFile,
    UnusableFileName,
)

RESERVED_MODULES = frozenset({"hedgerow", "runtime"})
_MODULE_SUFFIXES = frozenset({".py", ".pyi", ".pyc", ".so", ".pyd"})
_KINDS = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


@dataclass(frozen=True)
class FoundFile:
    """A regular file: its '/'-separated path in the folder, where to read it, and what it looked like when listed."""

    path: str
    source: Path
    size_bytes: int
    executable: bool = False


def list_files(folder: Path) -> list[FoundFile]:
    """Every file below ``folder``; links to files inside it are followed.

    Raises LinkOutside, SpecialFile, UnreadableFile or UnusableFileName with the path named.
    """
    root = folder.resolve()
    return sorted(_walk(root, root, ""), key=lambda file: file.path)


def list_source(folder: Path, allowed_secrets: frozenset[str], only: str | None = None) -> list[FoundFile]:
    """The files of a scoring source, without caches and version control; with ``only`` just that file of the folder.

    Raises SecretInSource for a file that looks like one, by name or content, and is not in ``allowed_secrets``, ReservedName
    for a top-level module called `hedgerow` or `runtime`.
    """
    files = [_regular(folder, folder / only, only)] if only else [f for f in list_files(folder) if not is_left_out(f.path)]
    refuse_secrets(folder, files, allowed_secrets)
    for file in files:
        if is_reserved(file.path):
            raise ReservedName(path=file.path)
    return files


def list_model(folder: Path, name: str, allowed_secrets: frozenset[str]) -> list[FoundFile]:
    """The files of model ``name``, by `NAME/PATH` in ``allowed_secrets``. Raises SecretInSource, and what list_files does."""
    files = list_files(folder)
    refuse_secrets(folder, files, allowed_secrets, f"{name}/")
    return files


def refuse_secrets(folder: Path, files: Iterable[FoundFile], allowed: frozenset[str], prefix: str = "") -> None:
    """Small files are read, all are judged by name. ``prefix`` stands before paths in ``allowed``. Raises SecretInSource."""
    root = folder.resolve()
    for file in files:
        named = prefix + file.path
        if named in allowed:
            continue
        # A link is also what it leads to.
        what = secret_by_name(file.path, file.source.resolve().relative_to(root).as_posix())
        if what is None and file.size_bytes <= SEARCHED_BYTES_MAX:
            what = secret_by_content(_content(file))
        if what is not None:
            raise SecretInSource(named, what)


def locate_script(script: Path, source: Path | None) -> tuple[Path, str]:
    """The source folder and the script's path in it; a relative ``script`` is meant inside ``source``."""
    folder = (source or script.parent).resolve()
    place = (folder / script).resolve() if source else script.resolve()
    if not place.is_relative_to(folder) or not place.is_file():
        raise ScriptNotFound(script=script, source=folder)
    return folder, place.relative_to(folder).as_posix()


def is_reserved(path: str) -> bool:
    """Whether a file would be imported in place of a package of ours once the source folder is on `sys.path`."""
    top, _, rest = path.partition("/")
    if rest:
        return top in RESERVED_MODULES
    stem, *suffixes = top.split(".")
    return stem in RESERVED_MODULES and bool(suffixes) and "." + suffixes[-1] in _MODULE_SUFFIXES


def _content(file: FoundFile) -> bytes:
    try:
        with file.source.open("rb") as stream:
            return stream.read(SEARCHED_BYTES_MAX)
    except OSError as problem:
        raise UnreadableFile(path=file.source, problem=problem.strerror) from problem


def _walk(root: Path, folder: Path, prefix: str) -> Iterator[FoundFile]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError as problem:
        raise UnreadableFile(path=folder, problem=problem.strerror) from problem
    for entry in found:
        path = _checked_path(prefix, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, Path(entry.path), path + "/")
        else:
            yield _regular(root, Path(entry.path), path)


def _regular(root: Path, place: Path, path: str) -> FoundFile:
    source = place
    try:
        if place.is_symlink():
            source = _followed(root, place)
        facts = source.lstat()
    except OSError as problem:
        raise UnreadableFile(path=place, problem=problem.strerror) from problem
    if not stat.S_ISREG(facts.st_mode):
        raise SpecialFile(path=place, what=_KINDS.get(stat.S_IFMT(facts.st_mode), "special file"))
    return FoundFile(path, source, facts.st_size, bool(facts.st_mode & stat.S_IXUSR))


def _followed(root: Path, link: Path) -> Path:
    # A link to a folder is refused as well: followed blindly it can lead in a circle.
    target = link.readlink()
    try:
        real = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        raise LinkOutside(path=link, target=target) from None
    if not real.is_relative_to(root) or real.is_dir():
        raise LinkOutside(path=link, target=target)
    return real


def _checked_path(prefix: str, name: str) -> str:
    if name.startswith(".wh."):
        raise UnusableFileName(path=prefix + name)  # in a layer such a name means "delete what is below"
    try:
        # A name is its bytes on disk; as Python reads them it would depend on the character set of the locale.
        return msgspec.convert(prefix + os.fsencode(name).decode(), RelativePath)
    except (UnicodeError, msgspec.ValidationError):
        raise UnusableFileName(path=prefix + name) from None
