"""Runs a probe's command beside a process module: in its folder, with its environment and limits, for a bounded time.

The command is a child in a session of its own and ends with all it started when its time is over. Should the agent be killed
meanwhile, an alarm set before the command began ends it.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from hedgerow.contracts.edge import Limits

# Limits and alarm have to hold from the command's first instruction on; setting them between fork and exec is not safe in a
# process with threads, so a small interpreter does it and becomes the command.
_BECOME = """
import os, resource, signal, sys
seconds, memory, files = (int(word) for word in sys.argv[1:4])
for limit, value in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_NOFILE, files)):
    if value:
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
signal.alarm(seconds)
try:
    os.execvp(sys.argv[4], sys.argv[4:])
except OSError as problem:
    sys.exit(f"{sys.argv[4]}: {problem.strerror}")
"""
_SPARE_S = 2
_SAID_BYTES = 4096
_SAID_CHARS = 200


def run_in_folder(command: Sequence[str], folder: Path, environment: Mapping[str, str], limits: Limits, timeout_s: float) -> str:
    """Run a command; "" when it ended with 0 in time, else what is wrong in a few words. Never raises OSError."""
    numbers = (math.ceil(timeout_s) + _SPARE_S, limits.memory_bytes or 0, limits.open_files or 0)
    argv = [sys.executable, "-I", "-S", "-c", _BECOME, *(str(number) for number in numbers), *command]
    try:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(reading, "rb", buffering=0) as output:
            return _end(_begin(argv, folder, environment, writing), output, command[0], timeout_s)
    except (OSError, ValueError) as problem:
        return f"{command[0]} could not be run: {problem}"


def _begin(argv: Sequence[str], folder: Path, environment: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
    """Takes ``output`` over."""
    try:
        return subprocess.Popen(
            argv,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.close(output)


def _end(child: subprocess.Popen[bytes], output: IO[bytes], program: str, timeout_s: float) -> str:
    said, in_time = _wait(child, output, timeout_s)
    # The group goes before its leader is reaped, as long as its number is certainly its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    if not in_time:
        return f"{program} did not end within {timeout_s:g} s"
    if code == 0:
        return ""
    lines = said.decode(errors="replace").strip().splitlines()
    how = f"exit code {code}" if code > 0 else f"signal {-code}"
    return f"{program} ended with {how}{': ' if lines else ''}{lines[-1][:_SAID_CHARS] if lines else ''}"


def _wait(child: subprocess.Popen[bytes], output: IO[bytes], timeout_s: float) -> tuple[bytes, bool]:
    """The end of its output, and whether it ended in time. It may write as much as it likes."""
    ends_s, said = time.monotonic() + timeout_s, b""
    with os.fdopen(os.pidfd_open(child.pid)) as ended, selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        selector.register(output, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select(max(0.0, ends_s - time.monotonic()))}
            if output in ready:
                chunk = os.read(output.fileno(), _SAID_BYTES)
                said = (said + chunk)[-_SAID_BYTES:]
                if not chunk:
                    selector.unregister(output)
            elif ended in ready:
                return said, True
            if time.monotonic() >= ends_s:
                return said, False
