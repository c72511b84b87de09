"""What can go wrong with supervised processes and locks."""

from __future__ import annotations

from pathlib import Path

from hedgerow.errors import ConflictError, NotFoundError, UnavailableError, UserError


class ProcessStartFailed(UserError):
    """The process cannot be started as specified. Fields: ``program``, ``problem``."""

    key = "process_start_failed"
    message = "Cannot start {program!r}: {problem}"
    remedy = "Correct the command, its folder, its user or its limits, and start it again."


class SupervisionFailed(UnavailableError):
    """The machine refuses what supervision needs (disk space, processes). Fields: ``folder``, ``problem``."""

    key = "process_supervision_failed"
    message = "Cannot supervise a process in {folder}: {problem}"
    remedy = "Free disk space, memory or processes on this machine; the same start may work then."


class AlreadyRunning(ConflictError):
    """The folder's process runs or is being started. Fields: ``folder``, ``pid`` (int, or None while it is being started)."""

    key = "process_already_running"
    message = "{what} in {folder}"
    remedy = "Stop it first, or use another folder."

    def __init__(self, *, folder: Path, pid: int | None) -> None:
        what = "A process is being started" if pid is None else f"A process already runs (pid {pid})"
        super().__init__(folder=folder, pid=pid, what=what)


class ProcessGone(NotFoundError):
    """There is no process with this pid. Fields: ``pid``."""

    key = "process_gone"
    message = "There is no process with pid {pid}"
    remedy = "Ask again for the processes that run now."


class LockHeld(ConflictError):
    """Another process holds a lock. Fields: ``path``, ``purpose``, ``pid`` (int, or None when the holder left no pid)."""

    key = "lock_held"
    message = "{purpose} is already running {holder} (lock {path})"
    remedy = "Use the one that runs, or stop it first."

    def __init__(self, *, path: Path, purpose: str, pid: int | None) -> None:
        holder = "in a process that left no pid" if pid is None else f"as pid {pid}"
        super().__init__(path=path, purpose=purpose, pid=pid, holder=holder)
