"""The folder that Mosquitto reads: private, and its own user's, since the workspace is closed to everybody but its owner."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hedgerow.atomic_write import atomic_write

_PREFIX = "hedgerow-mosquitto-"


@dataclass(frozen=True)
class Owner:
    """Whom Mosquitto runs as; None: as ourselves."""

    uid: int | None = None
    gid: int | None = None


def owner_for(program_user: str = "mosquitto") -> Owner:
    """Its package's user when we are root: a program that strangers talk to should not be."""
    if os.geteuid() != 0:
        return Owner()
    with contextlib.suppress(KeyError):
        found = pwd.getpwnam(program_user)
        return Owner(found.pw_uid, found.pw_gid)
    return Owner()


class Files:
    """``note`` is a file in the workspace that names the folder, so that one left by a killed process is removed."""

    def __init__(self, note: Path, owner: Owner) -> None:
        self._note, self._owner = note, owner
        _remove_former(note)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        atomic_write(note, str(self.folder).encode())
        self._hand_over(self.folder)

    def write(self, name: str, content: bytes) -> None:
        """Whole or not at all, readable by Mosquitto only."""
        fresh = self.folder / f".{name}"
        # The folder is Mosquitto's own: what it may have put there is neither written to nor given away.
        fresh.unlink(missing_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            if self._owner.uid is not None:
                os.fchown(fd, self._owner.uid, self._owner.gid if self._owner.gid is not None else -1)
        fresh.replace(self.folder / name)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._note.unlink(missing_ok=True)

    def _hand_over(self, path: Path) -> None:
        if self._owner.uid is not None:
            os.chown(path, self._owner.uid, self._owner.gid if self._owner.gid is not None else -1, follow_symlinks=False)


def _remove_former(note: Path) -> None:
    try:
        former = Path(note.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return
    if former.parent == Path(tempfile.gettempdir()) and former.name.startswith(_PREFIX):
        shutil.rmtree(former, ignore_errors=True)
