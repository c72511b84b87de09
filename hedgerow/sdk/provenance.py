"""Where a run's code and data come from: the git commit of a folder, the digest of a data set. Both are only described."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from hedgerow.contracts.document import convert
from hedgerow.contracts.model import DataRef, SourceCommit, digest_of_files
from hedgerow.contracts.names import is_digest
from hedgerow.errors import InvalidDocument
from hedgerow.sdk import files

_TIMEOUT_S = 10.0
# Nothing of the caller's environment, and nothing that a repository's own settings could have git run.
_ENVIRONMENT = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
_QUIET = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")


def commit_of(folder: Path) -> SourceCommit | None:
    """The commit that ``folder`` is at; None where there is no git, no repository or no commit yet.

    ``dirty`` minds this folder only, and files that git does not know yet count. Credentials in the remote's address are left
    out.
    """
    program = shutil.which("git")
    commit = None if program is None else _git(program, folder, "rev-parse", "--verify", "HEAD")
    if program is None or not commit:
        return None
    changes = _git(program, folder, "status", "--porcelain", "--", ".")
    found = {
        "commit": commit,
        "repository": without_credentials(_git(program, folder, "config", "--get", "remote.origin.url") or ""),
        "branch": _git(program, folder, "symbolic-ref", "--short", "--quiet", "HEAD") or "",
        # What cannot be looked at within the time is not said to be clean.
        "dirty": changes != "",
    }
    try:
        return convert(found, SourceCommit)
    except InvalidDocument:
        # A branch or an address longer than anybody names one: the commit is what counts.
        return convert({"commit": commit, "dirty": found["dirty"]}, SourceCommit)


def data_refs(data: Mapping[str, str | Path]) -> list[DataRef]:
    """Each name with the digest of its content: ``sha256:…`` as given, or a file or folder here, which is read.

    A file's digest is its sha256, a folder's that of the list of its files (as a model's). Raises InvalidDocument (a name),
    NotARegularFile, NothingToRegister, OSError.
    """
    return [_data_ref(name, where) for name, where in data.items()]


def without_credentials(address: str) -> str:
    """``https://user:secret@host/x?token=y`` becomes ``https://host/x``; what is no URL (``git@host:x``) stays."""
    if "://" not in address:
        return address
    try:
        parts = urlsplit(address)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return ""


def _data_ref(name: str, where: str | Path) -> DataRef:
    if isinstance(where, str) and is_digest(where):
        return convert({"name": name, "digest": where}, DataRef)
    path = Path(where)
    found = [file.entry for file in files.collect([path])]
    digest = digest_of_files(found) if path.is_dir() else found[0].digest
    return convert({"name": name, "digest": digest, "uri": path.resolve().as_uri()}, DataRef)


def _git(program: str, folder: Path, *arguments: str) -> str | None:
    """What git says, without the last line end; None when it fails or takes too long."""
    argv = [program, *_QUIET, "-C", str(folder.resolve()), *arguments]
    try:
        done = subprocess.run(
            argv, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").rstrip("\n") if done.returncode == 0 else None
