"""The folder into which images are unpacked to be served: each there whole or not at all, under its digest, and kept.

What lies there is run without being looked at again, so the folder must be ours alone. Processes that unpack take turns; what a
killed one left is removed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from hedgerow.contracts.oci import Descriptor
from hedgerow.safe_tar import UnsafeArchive, unpack_tar
from hedgerow.sdk.image_sources import CheckedBlob, ImageSource, refused


class ImageCache:
    """The cache in ``folder``, which is made. Raises ImageNotServable when others could write there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            problem = "the folder to unpack it into is another user's, or others may write to it"
            raise refused(folder, problem, "Set XDG_CACHE_HOME to a folder of your own, or make it yours: chmod go-w.")

    def unpacked(self, source: ImageSource, digest: str, layers: Iterable[Descriptor]) -> Path:
        """The folder of the manifest ``digest``, unpacked now unless it is there. Raises ImageNotServable, OSError."""
        target = self._folder / digest.replace(":", "-")
        with self._locked():
            if target.is_dir():
                return target
            for left in self._folder.glob(".part-*"):  # of a process that was killed: whoever unpacks has the lock
                shutil.rmtree(left, ignore_errors=True)
            part = Path(tempfile.mkdtemp(prefix=".part-", dir=self._folder))
            try:
                for layer in layers:
                    unpack_tar(cast("IO[bytes]", CheckedBlob(source, layer)), part, name=layer.digest)
                os.sync()  # after a power cut a folder with this name is whole, too
                part.rename(target)
            except UnsafeArchive as problem:
                raise refused(source.where, str(problem), problem.remedy) from problem
            finally:
                shutil.rmtree(part, ignore_errors=True)
        return target

    @contextlib.contextmanager
    def for_the_time_being(self) -> Iterator[Path]:
        """An empty folder that whoever comes next removes if we are killed: it is locked as long as somebody has it."""
        with self._locked():
            for left in self._folder.glob(".layout-*"):
                with contextlib.suppress(OSError):
                    held = _hold(left)
                    shutil.rmtree(left, ignore_errors=True)
                    os.close(held)
            folder = Path(tempfile.mkdtemp(prefix=".layout-", dir=self._folder))
            held = _hold(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / ".lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _hold(folder: Path) -> int:
    """A descriptor that keeps ``folder`` ours. Raises OSError (BlockingIOError: it is somebody else's)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd
