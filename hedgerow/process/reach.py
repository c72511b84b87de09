"""Which folders another user of this machine could enter: asked, and opened, before foreign code is given a user of its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from hedgerow.process.sandbox import SANDBOX_GID


def first_barred(path: Path, uid: int, gid: int) -> Path | None:
    """The first folder on the way to (and including) ``path`` that a user without other groups cannot enter.

    ``path`` itself may be a file. Raises OSError when it is not there.
    """
    real = path.resolve(strict=True)
    for folder in reversed((real, *real.parents)):
        found = folder.stat()
        if stat.S_ISDIR(found.st_mode) and not _may_enter(found, uid, gid):
            return folder
    return None


def barred_by(paths: Iterable[Path], uid: int) -> Path | None:
    """The first folder on the ways to ``paths`` that the user of a sandbox cannot enter; None when all are open to it."""
    found = (first_barred(path, uid, SANDBOX_GID) for path in paths)
    return next((folder for folder in found if folder is not None), None)


def open_way(folder: Path, gid: int = SANDBOX_GID) -> None:
    """Let sandboxes pass through ``folder``, which is ours: their group may enter it, and sees nothing listed."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    os.chown(folder, -1, gid)
    folder.chmod(mode & ~0o070 | 0o010)


def _may_enter(found: os.stat_result, uid: int, gid: int) -> bool:
    if found.st_uid == uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
