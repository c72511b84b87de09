"""One holder at a time of a file, across processes and crashes: the kernel drops the lock with its holder."""

from __future__ import annotations

import fcntl
import os
import select
from pathlib import Path
from types import TracebackType

from hedgerow.process.errors import LockHeld
from hedgerow.process.identity import is_alive, start_time_ticks

# Between taking the lock and writing its pid a holder needs microseconds; a loser looks again for this long.
_PID_WAIT_MS = 5
_PID_WAITS = 20


class HeldLock:
    """A lock that this process holds until ``release``, the end of the ``with`` block or its own end."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)  # before the lock goes, so that the file never names a process that holds nothing
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def hold_lock(path: Path, purpose: str) -> HeldLock:
    """Take the lock at once or raise LockHeld (fields path, purpose, pid); ``purpose`` names the role, such as "The hub".

    The file stays where it is when the lock is released. Processes forked without exec share the lock.
    """
    fd = try_lock(path)
    if fd is None:
        raise LockHeld(path=path, purpose=purpose, pid=_wait_for_holder(path))
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()} {start_time_ticks(os.getpid())}\n".encode(), 0)
    return HeldLock(path, fd)


def lock_holder(path: Path) -> int | None:
    """Pid of the holder, None when nobody holds the lock. Only reads, so it never makes a concurrent ``hold_lock`` fail."""
    try:
        words = path.read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:
        return None
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None  # released, or taken this very moment
    pid, ticks = (int(word) for word in words)
    return pid if is_alive(pid, ticks) else None


def try_lock(path: Path) -> int | None:
    """A close-on-exec descriptor that holds the exclusive lock on ``path`` (made when missing), None when another holds it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(fd, path):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # the file was removed between open and lock: what we hold means nothing to others


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _wait_for_holder(path: Path) -> int | None:
    for _ in range(_PID_WAITS):
        holder = lock_holder(path)
        if holder is not None:
            return holder
        select.poll().poll(_PID_WAIT_MS)
    return None
