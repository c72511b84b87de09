"""What a file was when somebody read it, as text: whoever rests on the answer sees later whether it still is that.

Small files are known by their content. Of large ones the file system says whether they were written to since.
"""

from __future__ import annotations

import hashlib
import os
import stat
from datetime import datetime
from pathlib import Path

_SMALL_BYTES = 8 << 20
# Two writes within one tick of the file system's clock leave the same times.
_UNSETTLED_S = 2.0


def seen_at(path: Path, now: datetime) -> str | None:
    """Text that is equal as long as the file is; None where nothing can be rested on.

    That is: there is no such regular file, it cannot be read, or it is large and was changed a moment ago. Read it
    *before* the file is used, so that what changes meanwhile counts as changed.
    """
    try:
        # O_NONBLOCK: opening a pipe would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:  # noqa: PTH123 - by descriptor
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return None
            if found.st_size <= _SMALL_BYTES:
                return "sha256:" + hashlib.sha256(file.read(_SMALL_BYTES + 1)).hexdigest()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    if abs(now.timestamp() - found.st_ctime) < _UNSETTLED_S:
        return None
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
