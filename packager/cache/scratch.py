"""A temporary folder for one build, inside the cache so that renames stay on one file system.

Its lock is held while the build lives. What a killed build left behind has a free lock and is removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hedgerow.process.lock import try_lock
from packager.oci.blobs import disk_error


@contextlib.contextmanager
def scratch_folder(cache: Path) -> Iterator[Path]:
    """A new folder below ``cache/scratch``, removed at the end whatever happens. Raises DiskFull."""
    parent = cache / "scratch"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent / ".lock"):
            _sweep(parent)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix="build-"))
            held = try_lock(folder / ".lock")
    except OSError as problem:
        raise disk_error(problem, parent) from problem
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _sweep(parent: Path) -> None:
    for folder in parent.glob("build-*"):
        free = try_lock(folder / ".lock")
        if free is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(free)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Between mkdtemp and the lock a folder looks abandoned; this lock keeps a sweeping neighbour out of that moment.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
