"""Which folders another user of this machine could enter; asked before foreign code is given a user of its own."""

from __future__ import annotations

import os
import stat
from pathlib import Path


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


def _may_enter(found: os.stat_result, uid: int, gid: int) -> bool:
    if found.st_uid == uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
