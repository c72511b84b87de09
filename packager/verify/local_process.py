"""An image as a process of this machine: unpacked, sandboxed, started by its own entry point. See sandbox.py."""

from __future__ import annotations

import contextlib
import os
import select
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hedgerow.contracts.proof import ProofReport
from hedgerow.process import Exited, Running, Supervised
from hedgerow.process.procfs import session_members
from packager.errors import VerificationFailed
from packager.verify.entry_point import Command
from packager.verify.prover import read_reports
from packager.verify.sandbox import Sandbox

READY_FILE = "ready.json"
_READY_BYTES_MAX = 4096
_LINES = 200
_STOP_GRACE_S = 2.0


class _ReadyFile(msgspec.Struct, frozen=True):
    address: str


@dataclass
class LocalProcess:
    """See :class:`packager.verify.started.StartedImage`. ``proof`` is None where no ONNX model is served.

    ``early_proof``: it runs while the server starts, which takes longer; not for models so large that two copies may not fit.
    """

    sandbox: Sandbox
    server: Command
    proof: Command | None
    proof_timeout_s: float
    early_proof: bool = False
    _processes: dict[str, Supervised] = field(default_factory=dict)

    def start(self) -> LocalProcess:
        """Raises ProcessStartFailed, SupervisionFailed."""
        try:
            self._run("server", self.server)
            if self.early_proof and self.proof is not None:
                self._run("proof", self.proof)
        except BaseException:
            self.stop()
            raise
        return self

    def address(self) -> tuple[str, int] | None:
        """Foreign code may have written the file: anything but a loopback port is nothing."""
        try:
            url = urlsplit(msgspec.json.decode(_read_regular(self.sandbox.home / READY_FILE), type=_ReadyFile).address)
            return ("127.0.0.1", url.port) if url.scheme == "http" and url.hostname == "127.0.0.1" and url.port else None
        except (OSError, ValueError, msgspec.MsgspecError):
            return None

    def ended(self) -> str | None:
        return _end_of(self._processes["server"])

    def log_tail(self) -> str:
        return self._processes["server"].tail(_LINES)

    def peak_memory_bytes(self) -> int | None:
        """The peaks of all its processes added up; pages that they share count for each."""
        seen = self._processes["server"].observe()
        if not isinstance(seen, Running):
            return None
        return sum(_peak_of(pid) for pid in session_members(seen.pid)) or None

    def prove(self) -> list[ProofReport]:
        if self.proof is None:
            return []
        process = self._processes.get("proof") or self._run("proof", self.proof)
        if not _wait_end(process, self.proof_timeout_s):
            process.stop(0.0)
            raise VerificationFailed(problem=f"its proof took longer than {self.proof_timeout_s:.0f} s")
        return read_reports(process.tail(_LINES), _end_of(process) or "no end")

    def stop(self) -> None:
        for process in self._processes.values():
            process.stop(_STOP_GRACE_S)

    def _run(self, name: str, command: Command) -> Supervised:
        process = Supervised(self.sandbox.records / name)
        self._processes[name] = process
        process.start(self.sandbox.spec(command.argv, command.environment))
        return process


def _read_regular(path: Path) -> bytes:
    """The beginning of a file; for a pipe nobody waits, and a link is not followed. Raises OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return file.read(_READY_BYTES_MAX) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""


def _wait_end(process: Supervised, timeout_s: float) -> bool:
    """Whether it ended in time."""
    exit_fd = process.exit_fd()
    if exit_fd is None:
        return True
    try:
        poller = select.poll()
        poller.register(exit_fd, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))
    finally:
        os.close(exit_fd)


def _end_of(process: Supervised) -> str | None:
    match process.observe():
        case Running():
            return None
        case Exited(reason=reason):
            return reason
        case _:
            return "it was never started"


def _peak_of(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
