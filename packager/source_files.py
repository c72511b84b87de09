"""Lists the files of a model or source folder, and refuses what must not enter an image.

Answers come sorted by path, whatever the order on disk; nothing is opened here. `oci/tar_layer.py` reads the files later and
notices when one changed in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import msgspec

from hedgerow.contracts.model import RelativePath
from packager.errors import (
    LinkOutside,
    ReservedName,
    ScriptNotFound,
    SecretInSource,
    SpecialFile,
    UnreadableFile,
    UnusableFileName,
)

# Made by tools on the way, never part of what a user means by "my source".
LEFT_OUT_FOLDERS = frozenset({"__pycache__", ".git", ".hg", ".svn", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache"})
LEFT_OUT_SUFFIXES = (".pyc", ".pyo")
RESERVED_MODULES = frozenset({"hedgerow", "runtime"})
_MODULE_SUFFIXES = frozenset({".py", ".pyi", ".pyc", ".so", ".pyd"})
_SECRET_NAMES = (
    *(".env", ".env.*", "*.env", ".envrc", ".netrc", ".pypirc", ".npmrc", ".git-credentials", ".htpasswd"),
    *(".pgpass", ".my.cnf", ".dockercfg", ".boto", ".s3cfg", ".vault-token", "kubeconfig"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"),
    *("credentials", "credentials.json", "application_default_credentials.json", "service-account*.json"),
)
_SECRET_FOLDERS = frozenset({".ssh", ".aws", ".gnupg", ".azure", ".kube", ".docker"})
_HARMLESS_NAMES = frozenset({".env.example", ".env.sample", ".env.template"})
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

    Raises SecretInSource for a file that looks like one and is not in ``allowed_secrets``, ReservedName for a top-level
    module called `hedgerow` or `runtime`.
    """
    files = [_regular(folder, folder / only, only)] if only else [f for f in list_files(folder) if not _is_left_out(f.path)]
    for file in files:
        # A link is also what it leads to, and the folders that are left out hold passwords of their own (.git/config).
        real = file.source.relative_to(folder.resolve()).as_posix()
        hidden = looks_secret(file.path) or looks_secret(real) or (_is_left_out(real) and not _is_left_out(file.path))
        if hidden and file.path not in allowed_secrets:
            raise SecretInSource(path=file.path)
        if is_reserved(file.path):
            raise ReservedName(path=file.path)
    return files


def locate_script(script: Path, source: Path | None) -> tuple[Path, str]:
    """The source folder and the script's path in it; a relative ``script`` is meant inside ``source``."""
    folder = (source or script.parent).resolve()
    place = (folder / script).resolve() if source else script.resolve()
    if not place.is_relative_to(folder) or not place.is_file():
        raise ScriptNotFound(script=script, source=folder)
    return folder, place.relative_to(folder).as_posix()


def looks_secret(path: str) -> bool:
    """Judged by name alone, as people and tools name them."""
    parts = PurePosixPath(path.lower()).parts
    if parts[-1] in _HARMLESS_NAMES:
        return False
    return any(part in _SECRET_FOLDERS for part in parts[:-1]) or any(fnmatchcase(parts[-1], name) for name in _SECRET_NAMES)


def is_reserved(path: str) -> bool:
    """Whether a file would be imported in place of a package of ours once the source folder is on `sys.path`."""
    top, _, rest = path.partition("/")
    if rest:
        return top in RESERVED_MODULES
    stem, *suffixes = top.split(".")
    return stem in RESERVED_MODULES and bool(suffixes) and "." + suffixes[-1] in _MODULE_SUFFIXES


def _walk(root: Path, folder: Path, prefix: str) -> Iterator[FoundFile]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError as problem:
        raise UnreadableFile(path=folder, problem=problem.strerror) from problem
    for entry in found:
        path = _checked_name(prefix + entry.name)
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


def _checked_name(path: str) -> str:
    if path.rpartition("/")[2].startswith(".wh."):
        raise UnusableFileName(path=path)  # in a layer such a name means "delete what is below"
    try:
        path.encode()
        msgspec.convert(path, RelativePath)
    except (UnicodeEncodeError, msgspec.ValidationError):
        raise UnusableFileName(path=path) from None
    return path


def _is_left_out(path: str) -> bool:
    parts = path.split("/")
    return not LEFT_OUT_FOLDERS.isdisjoint(parts[:-1]) or path.endswith(LEFT_OUT_SUFFIXES)
