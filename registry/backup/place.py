"""Where a restored workspace is built: a hidden folder beside its target, put in place by one rename.

The folder has one name for each target, so that what a killed restore left is cleared by the next; its lock (the kernel's) lets
only one restore in. Its name can be guessed, and other users may be able to make it before us: it must be our own folder, that
nobody else can write to.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hedgerow.atomic_write import atomic_write, fsync_folder
from hedgerow.contracts.backup import RestoreReport
from hedgerow.contracts.document import decode, encode
from registry.backup.errors import RestorePlaceTaken, RestoreUnderWay, TargetIsMount, TargetNotEmpty

_DONE = "restored.json"


class BuildingPlace:
    """``folder`` is where to build; nothing is at ``target`` before :meth:`publish`."""

    def __init__(self, folder: Path, target: Path) -> None:
        self.folder, self.target = folder, target
        # Whether a database elsewhere holds what belongs to this folder.
        self.is_committed = False

    def clear(self) -> None:
        """Remove what an earlier restore left."""
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def left_done(self) -> RestoreReport | None:
        """What a restore noted that was killed about when it committed; only the database can tell whether it did."""
        path = self.folder / _DONE
        return decode(path.read_bytes(), RestoreReport) if path.is_file() else None

    def note_done(self, report: RestoreReport) -> None:
        """To be called right before the commit, when all else is durable."""
        atomic_write(self.folder / _DONE, encode(report))
        fsync_folder(self.folder)

    def publish(self) -> None:
        """From now on it is the workspace. Raises TargetNotEmpty."""
        check_free(self.target)
        try:
            self.folder.rename(self.target)  # over an empty folder, too
        except OSError as problem:
            if problem.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise TargetNotEmpty(where=self.target, found="somebody wrote into it meanwhile") from None
            raise
        fsync_folder(self.target.parent)
        (self.target / _DONE).unlink(missing_ok=True)


def check_free(target: Path) -> None:
    """Raises TargetNotEmpty, TargetIsMount."""
    if not target.exists():
        return
    if not target.is_dir():
        raise TargetNotEmpty(where=target, found="it is a file")
    if found := sorted(entry.name for entry in target.iterdir()):
        raise TargetNotEmpty(where=target, found=", ".join(found[:3]))
    if target.is_mount():
        raise TargetIsMount(folder=target)


@contextmanager
def building_place(target: Path) -> Iterator[BuildingPlace]:
    """Gone afterwards unless it was published, or committed. Raises its errors, OSError."""
    target = target.resolve()
    check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    place = BuildingPlace(target.with_name(f".{target.name}.restoring"), target)
    lock = _locked(place)
    try:
        yield place
    except BaseException:
        # What is committed in a database elsewhere belongs to this folder: the next restore finds both and goes on.
        if not place.is_committed:
            shutil.rmtree(place.folder, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _locked(place: BuildingPlace) -> int:
    while True:
        descriptor = _opened(place.folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if place.folder.is_dir() and os.path.samestat(os.fstat(descriptor), place.folder.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise RestoreUnderWay(folder=place.target) from None
        os.close(descriptor)  # removed or put in place between our look and our lock


def _opened(folder: Path) -> int:
    """Raises RestorePlaceTaken, OSError."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as problem:
        if problem.errno in (errno.ENOTDIR, errno.ELOOP):
            raise RestorePlaceTaken(folder=folder, problem="it is a link or a file") from None
        if problem.errno == errno.EACCES:
            raise RestorePlaceTaken(folder=folder, problem="it belongs to another user") from None
        raise
    # Of what is open, not of what has the name by now.
    seen = os.fstat(descriptor)
    problem_found = ""
    if seen.st_uid != os.geteuid():
        problem_found = f"it belongs to the user with the id {seen.st_uid}"
    elif seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem_found = "others may write into it"
    if problem_found:
        os.close(descriptor)
        raise RestorePlaceTaken(folder=folder, problem=problem_found)
    return descriptor
