"""The parent of the control plane's processes: start all, restart what dies, stop in reverse order.

Takes Roles; knows nothing of what they do. One loop waits on everything at once: signals, ends of children, the end
of standard input, restart times.
"""

from __future__ import annotations

import os
import random
import selectors
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from hedgerow.backoff import Backoff
from hedgerow.clock import Clock
from registry.up.roles import Role

STOP_GRACE_S = 15.0
_HEALTHY_AFTER_S = 60.0
_LOOK_S = 0.02
_BACKOFF = Backoff(first_s=0.5, cap_s=30.0)


@dataclass
class _Child:
    role: Role
    process: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    failures: int = 0
    started_s: float = 0.0
    restart_at_s: float | None = None
    ready: bool = field(default=False)


class Supervisor:
    """Runs a list of roles until told to stop.

    Invariants: at most one process per role; a role that ended is started again with a growing delay, for ever; after
    :meth:`run` returns no child is left.
    """

    def __init__(self, roles: list[Role], clock: Clock, environment: dict[str, str], say: Callable[[str], None]) -> None:
        self._children = [_Child(role) for role in roles]
        self._clock = clock
        self._environment = environment
        self._say = say
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._announced = False

    def run(self, on_ready: Callable[[], None], watched_fd: int | None = None) -> int:
        """Returns the exit code: 0 after a stop that was asked for, 1 when a role cannot even start once."""
        read_end, write_end = socket.socketpair()
        write_end.setblocking(False)
        signal.set_wakeup_fd(write_end.fileno())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        self._selector.register(read_end, selectors.EVENT_READ, lambda: read_end.recv(64))
        if watched_fd is not None:
            self._selector.register(watched_fd, selectors.EVENT_READ, lambda: self._parent_spoke(watched_fd))
        for child in self._children:
            self._start(child)
        try:
            while not self._stopping:
                self._turn(on_ready)
        except _FirstStartFailed:
            return 1
        finally:
            self._stop_all()
            signal.set_wakeup_fd(-1)
        return 0

    def _turn(self, on_ready: Callable[[], None]) -> None:
        """One look at everything that may have happened."""
        for key, _ in self._selector.select(self._timeout_s()):
            key.data()
        for child in self._children:
            if child.restart_at_s is not None and self._clock.monotonic_s() >= child.restart_at_s:
                self._start(child)
            if not child.ready and child.process is not None and child.role.ready_file.exists():
                child.ready = True
        if not self._announced and all(child.ready for child in self._children):
            self._announced = True
            on_ready()

    def _timeout_s(self) -> float | None:
        # Ready files have no descriptor to wait on; the short look lasts only until everybody is up.
        if not all(child.ready for child in self._children if child.process):
            return _LOOK_S
        times = [child.restart_at_s for child in self._children if child.restart_at_s is not None]
        return max(0.0, min(times) - self._clock.monotonic_s()) if times else None

    def _start(self, child: _Child) -> None:
        child.role.ready_file.unlink(missing_ok=True)
        child.ready, child.restart_at_s = False, None
        # The child's standard input is a pipe from us: when we die, however, it ends, and the child stops itself.
        # A session of its own keeps the terminal's Ctrl-C with us, so that stopping happens in order.
        child.process = subprocess.Popen(
            child.role.argv,
            stdin=subprocess.PIPE,
            env=self._environment,
            cwd=child.role.ready_file.parent,
            start_new_session=True,
        )
        child.started_s = self._clock.monotonic_s()
        child.pidfd = os.pidfd_open(child.process.pid)
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._ended(child))

    def _ended(self, child: _Child) -> None:
        code = self._reap(child)
        now_s = self._clock.monotonic_s()
        if not self._announced and not child.ready:
            # Before everything was up once, a failing role is a wrong start, not an accident to recover from.
            raise _FirstStartFailed
        if now_s - child.started_s > _HEALTHY_AFTER_S:
            child.failures = 0
        delay_s = _BACKOFF.delay_s(child.failures, random.random)
        child.failures += 1
        child.restart_at_s = now_s + delay_s
        self._say(f"The {child.role.name} ended with code {code}; starting it again in {delay_s:.1f} s")

    def _reap(self, child: _Child) -> int:
        assert child.process is not None  # noqa: S101 - only called for a child that was started
        code = child.process.wait()
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        if child.process.stdin:
            child.process.stdin.close()
        child.process = None
        return code

    def _stop_all(self) -> None:
        for child in reversed(self._children):
            if child.process is None:
                continue
            child.process.terminate()
            try:
                child.process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self._say(f"The {child.role.name} did not stop within {STOP_GRACE_S:.0f} s and is ended by force")
                child.process.kill()
            self._reap(child)
            child.role.ready_file.unlink(missing_ok=True)

    def _asked_to_stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _parent_spoke(self, fd: int) -> None:
        if os.read(fd, 64) == b"":
            self._stopping = True


class _FirstStartFailed(Exception):
    """A role ended before it was ever ready; it has said why on standard error."""
