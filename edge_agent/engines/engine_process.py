"""Modules as plain processes under shims (``hedgerow.process``): they outlive the agent and are adopted by the next one.

Folder of a module: ``modules/NAME/`` with ``launch.json`` (what was started, written before the start), ``ready.json``
(written by the runtime once it listens), ``process/`` (the shim's records and the log), ``work/`` (its working folder) and
``tap/`` (sockets by which a shadow's comparer listens, ``runtime/observing/tap.py``).
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_agent.engines.control_groups import ControlGroups
from edge_agent.engines.engine import Launch
from edge_agent.engines.stand_back import stand_back
from edge_agent.errors import ImageNotPulled, ModuleStartFailed
from edge_agent.reconcile.situation import EngineKind, Exited, Running, Seen, Wanted
from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.shadow import belongs_to_shadow
from hedgerow.errors import HedgerowError
from hedgerow.process import Absent, ProcessSpec, ResourceLimits, Supervised
from hedgerow.process import Exited as ProcessExited
from hedgerow.process import Running as ProcessRunning

log = logging.getLogger(__name__)
D = TypeVar("D", bound=msgspec.Struct)
LAST_WORDS_CHARS = 200
LOG_FILES = 3
_SHADOW_NICE = 10
SIGNAL_EXIT_BASE = 128  # the shell's and Docker's way to give a signal as an exit code


class _LaunchRecord(msgspec.Struct, frozen=True):
    fingerprint: str
    port: int | None = None
    writes_ready_file: bool = False


class _ReadyFile(msgspec.Struct, frozen=True):
    address: str
    pid: int


class ProcessEngine:
    """``images`` gives the folder of an unpacked image (which may not exist); ``environment`` is every module's base."""

    kind: EngineKind = "process"

    def __init__(
        self,
        folder: Path,
        images: Callable[[ImagePin], Path],
        environment: Mapping[str, str],
        *,
        log_bytes_max: int = 3_000_000,
        groups: ControlGroups | None = None,
    ) -> None:
        self._folder = folder
        self._images = images
        self._environment = dict(environment)
        self._log_bytes_max = log_bytes_max
        self._groups = groups
        self._watcher: _ExitWatcher | None = None

    def look(self) -> list[Seen]:
        names = sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []
        return [seen for name in names if (seen := self._look_at(name)) is not None]

    def watch(self, wake: Callable[[], None]) -> None:
        self._watcher = _ExitWatcher(wake)
        for seen in self.look():
            if isinstance(seen, Running):
                self._watch_exit(seen.name)

    def address(self, name: str) -> str | None:
        seen = self._look_at(name)
        return seen.address if isinstance(seen, Running) else None

    def start(self, launch: Launch) -> None:
        wanted, folder = launch.wanted, self._folder / launch.wanted.name
        argv, record = self._command(wanted, folder)
        (folder / "work").mkdir(parents=True, exist_ok=True)
        (folder / "ready.json").unlink(missing_ok=True)
        if _read(folder / "launch.json", _LaunchRecord) != record:  # a restart needs no room on a full disk
            atomic_write(folder / "launch.json", encode(record), mode=0o600)
        limits, group = self._bounds(wanted)
        environment = {**self._environment, **wanted.spec.variables, **launch.environment}
        process = ProcessSpec(
            argv=argv,
            cwd=str(folder / "work"),
            environment=environment,
            limits=limits,
            log_bytes_max=self._log_bytes_max // LOG_FILES,
            log_files=LOG_FILES,
            cgroup=group,
        )
        started = self._process(wanted.name).start(process)
        if belongs_to_shadow(wanted.name):
            stand_back(started.pid, _SHADOW_NICE)
        self._watch_exit(wanted.name)

    def stop(self, name: str, grace_s: float) -> None:
        self._process(name).stop(grace_s)
        if self._groups is not None:
            self._groups.kill(name)

    def remove(self, name: str, *, purge: bool) -> None:
        self._process(name).forget()
        if self._groups is not None:
            self._groups.remove(name)
        for leftover in ("launch.json", "ready.json"):
            (self._folder / name / leftover).unlink(missing_ok=True)
        if purge:
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def work_folder(self, name: str) -> Path:
        """The folder that a module works in."""
        return self._folder / name / "work"

    def log_path(self, name: str) -> Path:
        """The file with the newest output of a module."""
        return self._process(name).log_path

    def close(self) -> None:
        """Stop watching; the modules run on."""
        if self._watcher is not None:
            self._watcher.close()

    def _process(self, name: str) -> Supervised:
        return Supervised(self._folder / name / "process")

    def _look_at(self, name: str) -> Seen | None:
        record = _read(self._folder / name / "launch.json", _LaunchRecord) or _LaunchRecord("")
        match self._process(name).observe():
            case Absent():
                return None
            case ProcessRunning() as running:
                address, detail = self._address(name, record, running.pid)
                return Running(
                    name=name,
                    kind="process",
                    fingerprint=record.fingerprint,
                    run=running.started_at.isoformat(),
                    pid=running.pid,
                    started_at=running.started_at,
                    address=address,
                    health="starting" if record.writes_ready_file and address is None else "ready",
                    detail=detail,
                )
            case ProcessExited() as ended:
                return _exited(name, record.fingerprint, ended, self._last_words(name, ended))

    def _last_words(self, name: str, ended: ProcessExited) -> str:
        """The end of a failed module's output: most often the very reason, and it stands where people look first."""
        if ended.signal is not None and self._groups is not None and self._groups.out_of_memory(name):
            return " (out of memory: it wanted more than its limit)"
        if ended.exit_code in (None, 0):
            return ""
        line = self._process(name).tail(1).strip()
        return f", its last words: {line[:LAST_WORDS_CHARS]}" if line else ""

    def _address(self, name: str, record: _LaunchRecord, pid: int) -> tuple[str | None, str]:
        if not record.writes_ready_file:
            return (None if record.port is None else f"http://127.0.0.1:{record.port}"), ""
        ready = _read(self._folder / name / "ready.json", _ReadyFile)
        if ready is None:
            return None, f"process {pid} does not listen yet"
        return (ready.address if "://" in ready.address else f"http://{ready.address}"), ""

    def _command(self, wanted: Wanted, folder: Path) -> tuple[list[str], _LaunchRecord]:
        spec = wanted.spec
        if wanted.image is None:
            if not spec.command:
                raise ModuleStartFailed(module=wanted.name, problem="it has neither an image nor a command")
            ours = [sys.executable, "-P", "-m"] if belongs_to_shadow(wanted.name) else []
            return [*ours, *spec.command], _LaunchRecord(wanted.fingerprint, port=spec.port)
        if wanted.image.kind != "onnx":
            raise ModuleStartFailed(
                module=wanted.name, problem=f"a process module runs onnx images, this is a {wanted.image.kind} image"
            )
        image = self._images(wanted.image)
        if not image.is_dir():
            raise ImageNotPulled(image=f"{wanted.image.name}@{wanted.image.digest}")
        listen = ["--host", "127.0.0.1", "--port", str(spec.port or 0), "--ready-file", str(folder / "ready.json")]
        # Always there, so that a shadow can come and go without the module noticing.
        tap = [] if belongs_to_shadow(wanted.name) else ["--tap-dir", str(folder / "tap")]
        argv = [sys.executable, "-P", "-m", "runtime", "--image", str(image), *listen, *tap]
        return argv, _LaunchRecord(wanted.fingerprint, port=spec.port, writes_ready_file=True)

    def _bounds(self, wanted: Wanted) -> tuple[ResourceLimits, str | None]:
        """Limits of each process by itself, and the control group of all of them where there can be one."""
        limits = wanted.spec.limits
        if self._groups is not None:
            try:
                return ResourceLimits(open_files=limits.open_files), str(self._groups.prepare(wanted.name, limits))
            except OSError as problem:
                log.warning("module %s gets no control group: %s", wanted.name, problem)
        return ResourceLimits(memory_bytes=limits.memory_bytes, open_files=limits.open_files), None

    def _watch_exit(self, name: str) -> None:
        if self._watcher is not None:
            self._watcher.add(self._process(name).exit_fd())


class _ExitWatcher:
    """One thread on all exit descriptors: an end is noticed when it happens, nothing is polled."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._selector = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="exit-watcher", daemon=True)
        self._thread.start()

    def add(self, exit_fd: int | None) -> None:
        """Take over a descriptor; None means that the process has ended already."""
        if exit_fd is None:
            self._wake()
            return
        # epoll takes new descriptors while another thread waits on it.
        self._selector.register(exit_fd, selectors.EVENT_READ)

    def close(self) -> None:
        self._closed = True
        os.eventfd_write(self._bell, 1)
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._bell:
                    if self._closed:
                        return
                    continue
                self._selector.unregister(key.fd)
                os.close(key.fd)
                self._wake()


def _exited(name: str, fingerprint: str, ended: ProcessExited, last_words: str) -> Exited:
    code = ended.exit_code if ended.signal is None else SIGNAL_EXIT_BASE + ended.signal
    return Exited(
        name=name,
        kind="process",
        fingerprint=fingerprint,
        run=ended.started_at.isoformat(),
        exit_code=None if ended.lost else code,
        started_at=ended.started_at,
        exited_at=ended.ended_at,
        reason=ended.reason + last_words,
    )


def _read(path: Path, kind: type[D]) -> D | None:
    try:
        return decode(path.read_bytes(), kind)
    except (FileNotFoundError, HedgerowError):
        # A missing or half written record means the same: not known yet.
        return None
