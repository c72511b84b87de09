"""From fork to exec: what the shim's child does to itself before it becomes the supervised process.

Imports of this module's functions are made in the child only and vanish with its exec.
"""

import os
from _collections_abc import Callable  # loaded anyway; collections.abc brings all of collections

from hedgerow.process.raw_signal import raw_signal

PR_SET_PDEATHSIG = 1


class Spec:
    """The starter's message (written by ``launch.py: spec_message``): tag, value, tag, value, … each ended by a NUL."""

    def __init__(self, message: bytes) -> None:
        fields = message.split(b"\0")[:-1]
        self.argv: list[bytes] = []
        self.environment: dict[bytes, bytes] = {}
        self.limits: dict[str, int] = {}
        self.groups: list[int] = []
        self.single: dict[bytes, bytes] = {}
        for tag, value in zip(fields[::2], fields[1::2], strict=True):
            if tag == b"arg":
                self.argv.append(value)
            elif tag == b"env":
                name, _, content = value.partition(b"=")
                self.environment[name] = content
            elif tag == b"group":
                self.groups.append(int(value))
            elif tag.startswith(b"limit:"):
                self.limits[tag[6:].decode()] = int(value)
            else:
                self.single[tag] = value

    def number(self, tag: bytes) -> int | None:
        """A numeric field that may be missing."""
        return int(self.single[tag]) if tag in self.single else None


def become(spec: Spec, shim_pid: int, output_fd: int, go_fd: int, problem_fd: int) -> None:
    """Turn this forked child into the process of ``spec``; never returns.

    Waits for one byte on ``go_fd`` (the shim has recorded us) before the exec. A step that fails is written to ``problem_fd`` as
    ``step errno``; a successful exec closes it empty.
    """
    step = "prepare"
    try:
        os.setsid()
        for target in (1, 2):
            os.dup2(output_fd, target)
        os.umask(0o077)
        _reset_signals()
        prctl = _prctl()
        step = "cgroup"
        _join(spec.single.get(b"cgroup"))
        for step, value in spec.limits.items():
            _limit(step, value)
        step = "user"
        _change_user(spec)
        # After the change of user, which clears it: our end is the end of the process, never a process without a supervisor.
        prctl(PR_SET_PDEATHSIG, raw_signal.SIGKILL, 0, 0, 0)
        if os.getppid() != shim_pid:
            return
        step = "cwd"
        os.chdir(spec.single[b"cwd"])
        step = "program"
        if os.read(go_fd, 1):
            os.execve(spec.single[b"program"], spec.argv, spec.environment)  # noqa: S606 - no shell is wanted
    except OSError as problem:
        os.write(problem_fd, f"{step} {problem.errno}".encode())
    except BaseException as problem:  # noqa: BLE001 - a child that does not exec must not run the shim's code
        os.write(problem_fd, f"{step}:{problem!r} 0".encode())
    finally:
        os._exit(127)


def _reset_signals() -> None:
    for signum in raw_signal.valid_signals():
        if signum not in (raw_signal.SIGKILL, raw_signal.SIGSTOP):
            raw_signal.signal(signum, raw_signal.SIG_DFL)
    raw_signal.pthread_sigmask(raw_signal.SIG_SETMASK, ())


def _join(group: bytes | None) -> None:
    """Before the change of user, who has no right to it; the shim itself stays outside of the module's limits."""
    if group is not None:
        fd = os.open(group + b"/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)


def _prctl() -> "Callable[..., int]":
    import ctypes

    function: Callable[..., int] = ctypes.CDLL(None).prctl
    return function


def _limit(name: str, value: int) -> None:
    import resource

    number = getattr(resource, name)
    # SIGXCPU comes at the soft limit; the few seconds to the hard one are for a last word.
    hard = value + 5 if name == "RLIMIT_CPU" else value
    try:
        resource.setrlimit(number, (value, hard))
    except ValueError:  # how it says EPERM: above the hard limit, without the right to raise it
        raise PermissionError(1, os.strerror(1)) from None


def _change_user(spec: Spec) -> None:
    uid, gid = spec.number(b"uid"), spec.number(b"gid")
    if os.geteuid() == 0 and (uid is not None or gid is not None):
        os.setgroups(spec.groups)
    if gid is not None:
        os.setresgid(gid, gid, gid)
    if uid is not None:
        os.setresuid(uid, uid, uid)
