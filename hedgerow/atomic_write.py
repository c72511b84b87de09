"""Files that are whole or not there: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def fsync_folder(folder: Path) -> None:
    """Make a rename or an unlink in ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(temporary: Path, target: Path, *, replace: bool) -> None:
    """Give a file that is whole its name, in the same folder. Without ``replace`` raises FileExistsError for what is there."""
    if replace:
        temporary.replace(target)
    else:
        try:
            os.link(temporary, target)  # unlike a rename it never replaces what came there meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            temporary.replace(target)
    fsync_folder(target.parent)


def atomic_write(path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True) -> None:
    """Replace ``path`` by ``data``; a reader sees the old content or the new, never a part.

    Raises OSError (for example ENOSPC) with the old file untouched and no temporary file left; without ``replace``
    FileExistsError for what is there.
    """
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        os.fchmod(fd, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(Path(temporary), path, replace=replace)
    finally:
        Path(temporary).unlink(missing_ok=True)
