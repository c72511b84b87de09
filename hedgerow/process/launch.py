"""Starts a shim: encodes the spec for it, runs it, reads its answer.

The starter may have threads, so it must not fork by itself: ``subprocess`` makes vfork and exec in C, and the shim forks away
once it is a program of its own. The spec travels in an anonymous memory file: never on disk or in a process list.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hedgerow.process.errors import ProcessStartFailed, SupervisionFailed
from hedgerow.process.limits import RLIMIT_NAMES
from hedgerow.process.spec import ProcessSpec, Running

ANSWER_WAIT_S = 30.0
_SHIM = Path(__file__).with_name("shim.py")


def spec_message(spec: ProcessSpec) -> bytes:
    """The spec as ``shim_child.Spec`` reads it: tag, value, …, each ended by a NUL.

    Raises ProcessStartFailed for what cannot run.
    """
    program = _program(spec)
    single = {"program": program, "cwd": spec.cwd, "log_bytes_max": spec.log_bytes_max, "log_files": spec.log_files}
    fields: list[tuple[str, str]] = [(tag, str(value)) for tag, value in single.items()]
    if spec.uid is not None:
        fields.append(("uid", str(spec.uid)))
    gid = spec.uid if spec.gid is None else spec.gid
    if gid is not None:
        fields.append(("gid", str(gid)))
    if spec.cgroup is not None:
        fields.append(("cgroup", spec.cgroup))
    fields += [("group", str(group)) for group in spec.groups]
    fields += [("arg", argument) for argument in spec.argv]
    fields += [("env", f"{name}={value}") for name, value in spec.environment.items()]
    for name, limit in RLIMIT_NAMES.items():
        value = getattr(spec.limits, name)
        if value is not None:
            fields.append((f"limit:{limit}", str(value)))
    fields.append(("limit:RLIMIT_CORE", "0"))  # a core file would hold the secrets of the environment
    _check(spec, [value for _, value in fields])
    return b"".join(os.fsencode(tag) + b"\0" + os.fsencode(value) + b"\0" for tag, value in fields)


def launch(folder: Path, spec: ProcessSpec, message: bytes, lock_fd: int) -> Running:
    """Run the shim in ``folder``; it inherits ``lock_fd``. Returns when the process has exec'd.

    Raises ProcessStartFailed, SupervisionFailed when the shim could not do its part, OSError when it cannot even be started.
    """
    answer_fd, answer_write = os.pipe()
    message_fd = os.memfd_create("spec")
    starter_fd = os.pidfd_open(os.getpid()) if spec.exit_with_starter else -1
    try:
        with os.fdopen(os.dup(message_fd), "wb") as file:
            file.write(message)
        os.lseek(message_fd, 0, os.SEEK_SET)
        fds = [answer_write, lock_fd, starter_fd]
        shim = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SHIM), str(folder), *map(str, fds)],
            cwd=folder,
            env={},
            stdin=message_fd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[fd for fd in fds if fd >= 0],
            start_new_session=True,
        )
        os.close(answer_write)
        answer_write = -1
        try:
            answer = _read_answer(answer_fd)
        finally:
            # It has forked long ago; only when it gave no answer there is something to kill.
            shim.kill()
            shim.wait()
    finally:
        for fd in (answer_fd, answer_write, message_fd, starter_fd):
            if fd >= 0:
                os.close(fd)
    return _understand(answer, folder, spec)


def _understand(answer: str, folder: Path, spec: ProcessSpec) -> Running:
    match answer.split():
        case ["ok", pid, ticks, started_at]:
            return Running(int(pid), int(ticks), datetime.fromtimestamp(float(started_at), UTC))
        case ["refused", step, number]:
            raise ProcessStartFailed(program=spec.argv[0], problem=_problem(step, int(number), spec))
        case ["unable", number]:
            raise SupervisionFailed(folder=folder, problem=os.strerror(int(number)))
        case _:
            problem = f"the supervising process answered {answer!r}" if answer else "the supervising process ended at once"
            raise SupervisionFailed(folder=folder, problem=problem)


def _problem(step: str, number: int, spec: ProcessSpec) -> str:
    text = os.strerror(number)
    if step == "cwd":
        return f"its folder {spec.cwd}: {text}"
    if step == "cgroup":
        return f"its control group {spec.cgroup}: {text}"
    if step == "user":
        return f"user {spec.uid}, group {spec.gid}: {text}"
    if step == "program":
        there = number == errno.ENOENT and Path(spec.cwd, spec.argv[0]).exists()
        return f"{text}{' (the interpreter in its first line)' if there else ''}"
    names = {limit: name for name, limit in RLIMIT_NAMES.items()}
    return f"limit {names[step]}: {text}" if step in names else f"{step}: {text}"


def _program(spec: ProcessSpec) -> str:
    if not spec.argv or not spec.argv[0]:
        raise ProcessStartFailed(program="", problem="the command is empty")
    if "/" in spec.argv[0]:
        return spec.argv[0]
    path = spec.environment.get("PATH", os.defpath)
    found = shutil.which(spec.argv[0], path=path)
    if found is None:
        raise ProcessStartFailed(program=spec.argv[0], problem=f"no such program in PATH ({path})")
    return found


def _check(spec: ProcessSpec, values: list[str]) -> None:
    problem = None
    if any("\0" in value for value in values):
        problem = "a NUL character in its command, folder or environment"
    elif not Path(spec.cwd).is_absolute():
        problem = f"its folder {spec.cwd!r} is not absolute"
    elif bad := [name for name in spec.environment if not name or "=" in name]:
        problem = f"{bad[0]!r} cannot name an environment variable"
    elif any(value is not None and value < 0 for value in msgspec.structs.astuple(spec.limits)):
        problem = "a limit cannot be negative"
    elif spec.log_bytes_max < 1 or spec.log_files < 1:
        problem = "its log needs at least one file of one byte"
    if problem is not None:
        raise ProcessStartFailed(program=spec.argv[0], problem=problem)


def _read_answer(fd: int) -> str:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if not poller.poll(ANSWER_WAIT_S * 1000):
        raise TimeoutError(f"no answer for {ANSWER_WAIT_S:.0f} s")
    return os.read(fd, 4096).decode(errors="replace")
