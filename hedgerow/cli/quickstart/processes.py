"""The quickstart's folder and the processes it starts: recorded, so that any later quickstart can end what one left.

A quickstart may be killed at any moment. Everything it starts is written down (pid and start time) in
``quickstart.json`` right after it started; supervised processes (replicas, modules, runs) have state folders of their own.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.cli.quickstart.errors import AlreadyRunning, DidNotHappen, FolderNotOurs
from hedgerow.clock import Clock
from hedgerow.contracts.document import decode, encode
from hedgerow.process.errors import LockHeld
from hedgerow.process.identity import is_alive, start_time_ticks
from hedgerow.process.lock import hold_lock, lock_holder
from hedgerow.process.supervised import Supervised

_STOP_GRACE_S = 20.0
_MARK = "quickstart.json"


class StartedProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process this quickstart started; a recycled pid has another start time."""

    what: str
    pid: int
    start_time_ticks: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """``quickstart.json``."""

    processes: list[StartedProcess] = []


@dataclass
class Place:
    """A quickstart's folder: ``workspace/`` of the control plane, ``device/`` of the edge agent, logs, the record."""

    folder: Path
    clock: Clock
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def device(self) -> Path:
        return self.folder / "device"

    def start(self, what: str, argv: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start ``python -P -m …`` in a session of its own with its output in ``WHAT.log``, and write it down."""
        with _uninterrupted(), (self.folder / f"{what}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                cwd=self.folder,
                start_new_session=True,
            )
            ticks = start_time_ticks(process.pid) or 0
            known = self._record().processes
            entry = StartedProcess(what=what, pid=process.pid, start_time_ticks=ticks)
            atomic_write(self.folder / _MARK, encode(Record(processes=[*known, entry])))
            self._children.append(process)
        return process

    def wait_for(self, what: str, look: Callable[[], object], seconds: float) -> None:
        """Until ``look()`` is truthy; raises DidNotHappen with what it saw last."""
        end_s = self.clock.monotonic_s() + seconds
        seen: object = None
        while not (seen := look()):
            if self.clock.monotonic_s() > end_s:
                raise DidNotHappen(what=what, seconds=seconds, seen=seen, folder=self.folder)
            select.select([], [], [], 0.02)

    def stop_everything(self) -> None:
        """End what this or an earlier quickstart started here: agents and control planes first, then what they left."""
        for process in [*reversed(self._record().processes), *self._lock_holders()]:
            _end(process)
        for child in self._children:
            child.wait()
        for root in (self.workspace / "run", self.device):
            for state in root.rglob("state.json") if root.is_dir() else ():
                Supervised(state.parent).stop(1.0)
        with suppress(FileNotFoundError):
            atomic_write(self.folder / _MARK, encode(Record()))

    def _lock_holders(self) -> list[StartedProcess]:
        """Agents and roles that an earlier quickstart was killed before it could write them down."""
        pids = {lock: lock_holder(lock) for lock in sorted(self.folder.rglob("*.lock"))}
        return [
            StartedProcess(what=lock.stem, pid=pid, start_time_ticks=ticks)
            for lock, pid in pids.items()
            if pid is not None and (ticks := start_time_ticks(pid)) is not None
        ]

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def _record(self) -> Record:
        path = self.folder / _MARK
        return decode(path.read_bytes(), Record) if path.exists() else Record()


def open_place(folder: Path, clock: Clock) -> Place:
    """A clean folder: what an earlier quickstart left in it is ended and removed. Raises FolderNotOurs, AlreadyRunning."""
    folder = folder.absolute()
    place = Place(folder, clock)
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).is_file():
            raise FolderNotOurs(folder=folder)
        place.stop_everything()
        place.remove()
    place.device.mkdir(parents=True, mode=0o700)
    atomic_write(folder / _MARK, encode(Record()))
    return place


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder for this quickstart; the lock lies beside it, since the folder itself comes and goes."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    try:
        lock = hold_lock(path, "A quickstart")
    except LockHeld as held:
        raise AlreadyRunning(pid=held.fields["pid"], folder=folder) from None
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is still ours


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C: between the start of a process and writing it down nobody would know of it."""
    held: list[int] = []
    before = {number: signal.signal(number, lambda number, _: held.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        raise KeyboardInterrupt


def _end(process: StartedProcess) -> None:
    """TERM, wait, KILL; by pidfd, so that a recycled pid is never hit."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if not is_alive(process.pid, process.start_time_ticks):
            return
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], _STOP_GRACE_S)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], _STOP_GRACE_S)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
