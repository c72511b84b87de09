"""Runs one command of foreign code in a sandbox (sandbox_entry.py), for a limited time, and keeps the end of what it prints."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hedgerow.clock import Clock
from hedgerow.process.limits import RLIMIT_NAMES
from hedgerow.process.sandbox import CONVERT_UID, SANDBOX_GID, sandboxed
from hedgerow.process.spec import ProcessSpec, ResourceLimits
from packager.convert.errors import SandboxUnavailable
from packager.convert.sandbox_entry import CLOSED, NOT_ENTERED, NOT_ENTERED_WORDS

_ENTRY = Path(__file__).with_name("sandbox_entry.py")
_LOG_BYTES = 64 << 10
# Same answers every time: no threads that add up in another order, no random hashes, no byte code left behind.
_STEADY = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "ORT_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True)
class Command:
    """``folder`` is where it runs; it may write to ``writable`` (inside ``folder``) and read ``readable`` besides."""

    argv: tuple[str, ...]
    folder: Path
    writable: Path
    readable: tuple[Path, ...]
    python_path: tuple[Path, ...]


@dataclass(frozen=True)
class Finished:
    """How it ended. ``isolated``: without network and with a file system of its own. ``log``: the end of stdout and stderr."""

    exit_code: int
    timed_out: bool
    isolated: bool
    stdout: bytes
    log: str


@dataclass(frozen=True)
class Sandbox:
    """Limits of every command. ``python`` starts the sandbox, it need not be the one inside."""

    python: Path
    memory_bytes: int
    timeout_s: float
    clock: Clock

    def run(self, command: Command) -> Finished:
        """Run ``command`` to its end. Raises SandboxUnavailable when it cannot begin, OSError when nothing starts."""
        as_root = os.geteuid() == 0
        root = command.folder / "root"
        root.mkdir(exist_ok=True)
        if as_root:
            os.chown(command.writable, CONVERT_UID, SANDBOX_GID)
        reading, writing = os.pipe()
        order = command.folder / "order.json"
        order.write_text(json.dumps(self._order(command, root, writing, as_root=as_root)), encoding="utf-8")
        try:
            process = subprocess.Popen(
                [str(self.python), "-I", "-S", str(_ENTRY), str(order)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[writing],
                env={},
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(writing)
        try:
            finished = self._watch(process, reading)
        finally:
            _end(process)
            os.close(reading)
        if finished.exit_code == NOT_ENTERED and NOT_ENTERED_WORDS in finished.log:
            raise SandboxUnavailable(problem=finished.log.strip().splitlines()[-1][:300])
        return finished

    def _order(self, command: Command, root: Path, report_fd: int, *, as_root: bool) -> dict[str, object]:
        limits = ResourceLimits(
            memory_bytes=self.memory_bytes, cpu_time_s=int(self.timeout_s * 4) + 5, processes=512, file_size_bytes=2 << 30
        )
        home = {"HOME": str(command.writable), "TMPDIR": str(command.writable)}
        path = {"PYTHONPATH": ":".join(str(one) for one in command.python_path)}
        bare = ProcessSpec(
            argv=list(command.argv), cwd=str(command.folder), environment={**_STEADY, **home, **path}, limits=limits
        )
        inside = sandboxed(bare, uid=CONVERT_UID if as_root else None)
        numbers = {name: getattr(inside.limits, field) for field, name in RLIMIT_NAMES.items()}
        return {
            "parent": os.getpid(),
            "root": str(root),
            "uid": CONVERT_UID,
            "gid": SANDBOX_GID,
            "argv": inside.argv,
            "cwd": inside.cwd,
            "environment": inside.environment,
            "limits": {**numbers, "RLIMIT_CORE": 0},
            "readable": [str(one) for one in (command.folder, *command.readable)],
            "writable": [str(command.writable)],
            "report_fd": report_fd,
        }

    def _watch(self, process: subprocess.Popen[bytes], report: int) -> Finished:
        """Read both streams to their ends, keeping what fits; whoever prints without end is only slow, never large."""
        deadline = self.clock.monotonic_s() + self.timeout_s
        kept = {"out": b"", "err": b""}
        with selectors.DefaultSelector() as streams:
            for name, stream in (("out", process.stdout), ("err", process.stderr)):
                if stream is not None:
                    streams.register(stream, selectors.EVENT_READ, name)
            while streams.get_map():
                left = deadline - self.clock.monotonic_s()
                if left <= 0:
                    return Finished(-1, True, _said(report), b"", kept["err"].decode(errors="replace"))
                for key, _ in streams.select(left):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        streams.unregister(key.fileobj)
                    kept[key.data] = (kept[key.data] + data)[-_LOG_BYTES:]
        try:
            code = process.wait(max(deadline - self.clock.monotonic_s(), 0.1))
        except subprocess.TimeoutExpired:
            return Finished(-1, True, _said(report), b"", kept["err"].decode(errors="replace"))
        return Finished(code, False, _said(report), kept["out"], kept["err"].decode(errors="replace"))


def python_roots(python: Path) -> tuple[Path, ...]:
    """What ``python`` must be able to read: its environment and its installation, where they are not below /usr."""
    found = {python.parent.parent, python.resolve().parent.parent}
    if python == Path(sys.executable):
        found |= {Path(sys.prefix), Path(sys.base_prefix)}
    return tuple(sorted(path for path in found if Path("/usr") not in (path, *path.parents) and path != Path("/")))


def _said(report: int) -> bool:
    os.set_blocking(report, False)
    try:
        return os.read(report, 16) == CLOSED
    except BlockingIOError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """The entry takes its namespace with it; without one, its session is ended."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
