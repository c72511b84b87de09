"""The experiments, each from the look before to the check after. They run in the command's process, beside the agent.

What is checked is what the agent promises: a module is not touched by what happens to the agent, its link or its disk; it is
running again after its own death; nothing that was acknowledged is dropped, or it is counted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.chaos.orders import Facts, Order
from edge_agent.chaos.room import BALLAST
from edge_agent.chaos.socket import ask
from edge_agent.chaos.trial import Protocol, Trial
from edge_agent.errors import ChaosNotAllowed, ChaosRefused, ChaosUnanswered
from hedgerow.clock import Clock

# Twice the longest pause between two attempts of link and hello (50 s) and of restarts, with some room.
BACK_WITHIN_S = 120.0
_LOOK_S = 0.25
_BALLAST_PART_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Lab:
    """``folder`` is the agent's state folder; ``say`` shows what happens."""

    folder: Path
    clock: Clock
    say: Callable[[str], None]

    def look(self) -> Facts:
        return ask(self.folder, Order(do="look"))

    def begin(self, experiment: str) -> Protocol:
        """Raises ChaosNotAllowed, ChaosUnanswered."""
        return Protocol(experiment, self.clock, self.say, self.look())

    def watch(self, protocol: Protocol, seconds: float, done: Callable[[Facts], bool]) -> Facts | None:
        """Look until ``done`` or ``seconds`` are over; the last facts, None when the agent does not answer at all."""
        until_s, pause = self.clock.monotonic_s() + seconds, threading.Event()
        facts: Facts | None = None
        while True:
            with contextlib.suppress(ChaosNotAllowed, ChaosUnanswered):
                facts = self.look()
                protocol.saw(facts)
                if done(facts):
                    return facts
            if self.clock.monotonic_s() >= until_s:
                return facts
            pause.wait(_LOOK_S)


def offline(lab: Lab, seconds: float) -> Trial:
    """The link is kept down: modules work on, their messages wait, and go out when it is back."""
    protocol = lab.begin(f"offline {seconds:g} s")
    ask(lab.folder, Order(do="offline", seconds=seconds))
    protocol.event("the link is down")
    lab.watch(protocol, seconds, lambda _: False)
    protocol.event(f"the link may come back; {protocol.queued_most} messages waited at most")
    back = lab.watch(protocol, BACK_WITHIN_S, lambda facts: facts.in_session)
    protocol.check("session with the hub", back is not None and back.in_session, f"to be back within {BACK_WITHIN_S:g} s")
    if back is not None and back.in_session:
        protocol.event("the hub answers again")
    few = max(protocol.before.queued, protocol.queued_most // 10)
    after = lab.watch(protocol, BACK_WITHIN_S, lambda facts: facts.queued <= few)
    protocol.check("queue drained", after is not None and after.queued <= few, f"to {few} messages or fewer")
    _check_untouched(protocol, after)
    _check_nothing_dropped(protocol, after)
    return protocol.end(after)


def kill_module(lab: Lab, module: str) -> Trial:
    """kill -9 of a module: it runs again, and no other one notices. Raises ChaosRefused."""
    protocol = lab.begin(f"kill-module {module}")
    found = protocol.before.modules.get(module)
    if found is None or found.pid is None:
        running = ", ".join(sorted(name for name, one in protocol.before.modules.items() if one.pid is not None)) or "none"
        raise ChaosRefused(problem=f"module {module} does not run (running: {running})")
    _kill(found.pid)
    protocol.event(f"module {module} (pid {found.pid}) was killed")

    def again(facts: Facts) -> bool:
        now = facts.modules.get(module)
        return now is not None and now.state == "running" and now.pid not in (None, found.pid)

    after = lab.watch(protocol, BACK_WITHIN_S, again)
    ok = after is not None and again(after)
    protocol.check("module runs again", ok, f"within {BACK_WITHIN_S:g} s")
    if ok and after is not None:
        protocol.event(f"module {module} runs again, pid {after.modules[module].pid}")
    _check_untouched(protocol, after, but=module)
    _check_nothing_dropped(protocol, after)
    return protocol.end(after)


def kill_agent(lab: Lab) -> Trial:
    """kill -9 of the agent: whoever keeps it (systemd) starts it again, and it finds its modules running."""
    protocol = lab.begin("kill-agent")
    pid = protocol.before.pid
    _kill(pid)
    protocol.event(f"the agent (pid {pid}) was killed")

    ran = {name for name, one in protocol.before.modules.items() if one.pid is not None}

    def settled(facts: Facts) -> bool:
        """The new one has found its modules."""
        return facts.pid != pid and ran <= {name for name, one in facts.modules.items() if one.pid is not None}

    after = lab.watch(protocol, BACK_WITHIN_S, settled)
    ok = after is not None and after.pid != pid
    protocol.check("agent runs again", ok, f"within {BACK_WITHIN_S:g} s (something has to start it: hedgerow agent install)")
    if ok and after is not None:
        protocol.event(f"the agent runs again, pid {after.pid}")
    _check_untouched(protocol, after)
    _check_nothing_dropped(protocol, after)
    return protocol.end(after)


def disk_full(lab: Lab, seconds: float, leave_bytes: int) -> Trial:
    """The disk of the state folder is filled: the agent answers, modules run on, drops are counted. Raises ChaosRefused."""
    protocol = lab.begin(f"disk-full {seconds:g} s")
    with _ballast(lab.folder / BALLAST, leave_bytes) as size:
        protocol.event(f"{size // 1_000_000} MB of ballast fill the disk of {lab.folder}")
        during = lab.watch(protocol, seconds, lambda _: False)
    protocol.event("the ballast is gone")
    protocol.check("agent answers", during is not None, "while the disk is full")
    after = lab.watch(protocol, BACK_WITHIN_S, lambda facts: facts.in_session or not protocol.before.in_session)
    same = after is not None and after.pid == protocol.before.pid
    protocol.check("agent runs on", same, "the same process as before")
    _check_untouched(protocol, after)
    dropped = after.dropped - protocol.before.dropped if after else 0
    protocol.check("drops are counted", after is not None, f"{dropped} messages, by the buffer's policy")
    return protocol.end(after)


def _check_untouched(protocol: Protocol, after: Facts | None, but: str = "") -> None:
    ran = {name: one.pid for name, one in protocol.before.modules.items() if one.pid is not None and name != but}
    now = {name: one.pid for name, one in after.modules.items()} if after else {}
    other = sorted(name for name, pid in ran.items() if now.get(name) != pid)
    detail = f"restarted or gone: {', '.join(other)}" if other else f"{len(ran)} run on, none was restarted"
    protocol.check("other modules" if but else "modules", not other, detail)


def _check_nothing_dropped(protocol: Protocol, after: Facts | None) -> None:
    dropped = after.dropped - protocol.before.dropped if after else 0
    protocol.check(
        "nothing was dropped", after is not None and dropped <= 0, f"{dropped} messages dropped by the buffer's policy"
    )


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError as problem:
        raise ChaosRefused(problem=f"process {pid} cannot be killed: {problem.strerror}") from None


@contextlib.contextmanager
def _ballast(path: Path, leave_bytes: int) -> Iterator[int]:
    """A file that takes what is free; gives its size. It goes at the end whatever happens in between."""
    facts = os.statvfs(path.parent)
    free = facts.f_frsize * (facts.f_bfree if os.geteuid() == 0 else facts.f_bavail)
    if free <= leave_bytes:
        raise ChaosRefused(problem=f"there are only {free} bytes free in {path.parent}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield _fill(fd, free - leave_bytes)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def _fill(fd: int, wanted: int) -> int:
    """In ever smaller parts until nothing more goes in."""
    size, part = 0, _BALLAST_PART_BYTES
    while size < wanted and part >= 4096:
        length = min(part, wanted - size)
        try:
            os.posix_fallocate(fd, size, length)
            size += length
        except OSError as problem:
            if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise ChaosRefused(problem=f"the ballast cannot be written: {problem.strerror}") from None
            part //= 2
    return size
