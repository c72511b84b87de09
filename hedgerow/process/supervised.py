"""One supervised process = one folder: start it, look at it, signal it, stop it, from any process at any time.

``start`` (``launch.py``) leaves a shim behind (``shim_watch.py``) that owns the process's output and exit status; everything
else here reads what the shim recorded (``records.py``) and checks it against the kernel. Nothing is kept in memory between calls.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from pathlib import Path

from hedgerow.clock import boot_id
from hedgerow.process.errors import AlreadyRunning, SupervisionFailed
from hedgerow.process.identity import is_alive
from hedgerow.process.launch import launch, spec_message
from hedgerow.process.lock import try_lock
from hedgerow.process.log_tail import tail_bytes
from hedgerow.process.procfs import read_stat, signal_session
from hedgerow.process.records import StateRecord, observation, read_exit, read_state
from hedgerow.process.spec import Exited, Observation, ProcessSpec, Running

# After KILL only a process in uninterruptible sleep is still there; nobody can wait for that to end.
KILL_WAIT_S = 10.0
# From exit.json to the end of the shim, which still holds the lock of the folder.
SHIM_END_WAIT_S = 5.0
_PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2
_POLL_MS = 10


class Supervised:
    """The process of one state folder. Making the object does nothing; any number of objects may look at one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    @property
    def log_path(self) -> Path:
        """The file that the output goes to now; older parts are ``log.1``, ``log.2``, …"""
        return self._folder / "log"

    def start(self, spec: ProcessSpec) -> Running:
        """Run a process; returns once it has exec'd. The log of an earlier one in this folder is continued.

        Raises ProcessStartFailed (the spec cannot run), AlreadyRunning, SupervisionFailed (no disk space, no processes left).
        """
        message = spec_message(spec)
        try:
            lock_fd = self._lock()
            try:
                self._clear_previous()
                return launch(self._folder, spec, message, lock_fd)
            finally:
                os.close(lock_fd)  # the shim has it too and keeps it as long as it lives
        except OSError as problem:
            raise SupervisionFailed(folder=self._folder, problem=problem.strerror or str(problem)) from problem

    def observe(self) -> Observation:
        """What is there now. Reads two small files and /proc; right from any process of this machine."""
        # exit.json is looked for last again: a shim that ended between our looks has written it before.
        ended, state = read_exit(self._folder), read_state(self._folder)
        shim_alive = isinstance(state, StateRecord) and is_alive(state.shim_pid, state.shim_start_time_ticks)
        if ended is None and not shim_alive:
            ended = read_exit(self._folder)
        return observation(ended, state, boot_id=boot_id(), shim_alive=shim_alive)

    def exit_fd(self) -> int | None:
        """A descriptor that becomes readable when the process has ended (then ``observe`` says how); None when it does not run.

        The caller closes it.
        """
        state = self._running()
        return None if state is None else _open_process(state.shim_pid, state.shim_start_time_ticks)

    def signal(self, signum: int) -> None:
        """Send a signal to the process and its group; does nothing when it has ended. Never hits a recycled pid."""
        state = self._running()
        if state is not None:
            _signal_group(state, signum)

    def stop(self, grace_s: float) -> Observation:
        """End the process and what it has in its session: TERM to its group, KILL to all that is left after ``grace_s``.

        Returns what there is then: Exited, or Absent when nothing was started; Running only for what even KILL cannot end
        (uninterruptible sleep).
        """
        state = self._running()
        if state is None:
            self._end_lost()
            return self.observe()
        shim_fd = _open_process(state.shim_pid, state.shim_start_time_ticks)
        if shim_fd is None:
            return self.observe()
        try:
            _send(shim_fd, signal.SIGUSR1)  # the shim then leaves the rest of the session its grace, too
            _send(shim_fd, signal.SIGCONT)
            _signal_group(state, signal.SIGTERM)
            if not _readable(shim_fd, grace_s):
                _signal_group(state, signal.SIGKILL)
                _end_session(state)
                _readable(shim_fd, KILL_WAIT_S)
        finally:
            os.close(shim_fd)
        return self.observe()

    def tail(self, lines: int) -> str:
        """The last lines of its output; bytes that are no UTF-8 are shown as U+FFFD."""
        return tail_bytes(self.log_path, lines).decode(errors="replace")

    def forget(self) -> None:
        """Remove the folder of an ended process, with its log. Raises AlreadyRunning while it runs."""
        if not self._folder.exists():
            return
        lock_fd = self._lock()
        try:
            self._clear_previous()
            for path in sorted(self._folder.iterdir(), key=lambda path: path.name == "lock"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()  # the lock last: until then no other start can get in
            with contextlib.suppress(OSError):  # not empty: another process began a start in it after the line above
                self._folder.rmdir()
        finally:
            os.close(lock_fd)

    def _lock(self) -> int:
        deadline = time.monotonic() + SHIM_END_WAIT_S
        while True:
            # Not exist_ok: its look after the refusal may find the folder forgotten. What is no folder fails at its lock.
            with contextlib.suppress(FileExistsError):
                self._folder.mkdir(mode=0o700, parents=True)
            try:
                lock_fd = try_lock(self._folder / "lock")
            except FileNotFoundError:  # forgotten by another process this very moment
                continue
            if lock_fd is not None:
                return lock_fd
            seen = self.observe()
            # A shim that has recorded the end is about to end; anything else that holds the lock runs or is being started.
            if not isinstance(seen, Exited) or time.monotonic() > deadline:
                raise AlreadyRunning(folder=self._folder, pid=seen.pid if isinstance(seen, Running) else None)
            select.poll().poll(_POLL_MS)

    def _clear_previous(self) -> None:
        self._end_lost()
        # In this order an observer in between sees the old end or nothing, never a process that got lost.
        for name in ("state.json", "exit.json"):
            (self._folder / name).unlink(missing_ok=True)

    def _running(self) -> StateRecord | None:
        if not isinstance(self.observe(), Running):
            return None
        state = read_state(self._folder)
        return state if isinstance(state, StateRecord) else None

    def _end_lost(self) -> None:
        """End what a killed shim left behind: its process dies with it (PDEATHSIG), the children of that do not."""
        state = read_state(self._folder)
        seen = self.observe()
        if isinstance(seen, Exited) and seen.lost and isinstance(state, StateRecord) and state.boot_id == boot_id():
            _end_session(state)


def _open_process(pid: int, start_time_ticks: int) -> int | None:
    """A pidfd of exactly this process, None when it has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if is_alive(pid, start_time_ticks):
        return fd
    os.close(fd)
    return None


def _send(pidfd: int, signum: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return


def _signal_group(state: StateRecord, signum: int) -> None:
    stat = read_stat(state.pid)
    if stat is None or stat.start_time_ticks != state.start_time_ticks:
        return
    try:
        fd = os.pidfd_open(state.pid)
    except ProcessLookupError:
        return
    try:
        # The shim keeps the leader as a zombie until all is recorded, so the group number stays ours while it lives.
        if is_alive(state.shim_pid, state.shim_start_time_ticks):
            signal.pidfd_send_signal(fd, signum, None, _PIDFD_SIGNAL_PROCESS_GROUP)
    except ProcessLookupError:
        return
    except OSError:  # EINVAL: a kernel before 6.9 knows pidfds of processes only
        _kill_group(state.pid, signum)
    finally:
        os.close(fd)


def _kill_group(group: int, signum: int) -> None:
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        return


def _end_session(state: StateRecord) -> None:
    """KILL to everything in the session of the process, until nothing is left or nothing can be done."""
    leader = read_stat(state.pid)
    if leader is not None and leader.start_time_ticks != state.start_time_ticks:
        return  # the number is in use again, so the kernel has seen the last of the old session
    deadline = time.monotonic() + KILL_WAIT_S
    while signal_session(state.pid, signal.SIGKILL, not_before_ticks=state.start_time_ticks) and time.monotonic() < deadline:
        select.poll().poll(_POLL_MS)


def _readable(fd: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(max(0.0, timeout_s) * 1000))
