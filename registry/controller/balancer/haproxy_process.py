"""HAProxy as a supervised process: started, asked what it runs, reloaded when the structure changes, told what else changes.

Each ``apply`` looks first and then does one thing: start, reload, or synchronise. Nothing is remembered that cannot be
asked for or done again, so a controller that was killed simply goes on with the process that runs.
"""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from hedgerow.atomic_write import atomic_write
from hedgerow.backoff import Backoff
from hedgerow.clock import Clock
from hedgerow.errors import HedgerowError
from hedgerow.process import ProcessSpec, Running, Supervised
from hedgerow.process.identity import is_alive
from registry.controller.balancer.haproxy_config import (
    CONFIG_FILE,
    MAP_FILE,
    MASTER_FILE,
    HaproxyFiles,
    HaproxyOptions,
    commands,
    map_lines,
    render,
    slots_of,
)
from registry.controller.balancer.haproxy_socket import HaproxySocket
from registry.controller.balancer.port import Routed, RoutingTable, scoring_url, served
from registry.controller.event_loop import EventLoop
from registry.errors import PortTaken

log = logging.getLogger(__name__)
# How soon to look again for something that has no descriptor to wait on: a socket that appears, a reload that ends.
_LOOK_S = 0.05
_SILENCE_S = 10.0
_CHECK_TIMEOUT_S = 10.0
_BACKOFF = Backoff(first_s=0.5, cap_s=15.0)


class HaproxyBalancer:
    """``folder`` holds configuration and socket, ``process`` the state of the supervised process."""

    def __init__(
        self,
        *,
        program: Path,
        folder: Path,
        process: Supervised,
        options: HaproxyOptions,
        loop: EventLoop,
        clock: Clock,
        on_end: Callable[[], None],
    ) -> None:
        self._program, self._folder, self._process, self._options = program, folder, process, options
        self._loop, self._clock, self._on_end = loop, clock, on_end
        self._socket = HaproxySocket(folder)
        self._applied: RoutingTable | None = None
        self._asked_for = ""  # the structure of the last start or reload, and when that was
        self._asked_at_s = 0.0
        self._silent_since_s: float | None = None
        self._failures = 0
        self._not_before_s = 0.0
        self._watching = False
        self._problem = ""

    @property
    def single_replica(self) -> str:
        return ""

    def apply(self, table: RoutingTable) -> Routed:
        if not table.pools:
            self.stop(grace_s=1.0)
            return Routed(settled=True)
        try:
            return self._apply(table, render(table, self._options))
        except (HedgerowError, OSError) as problem:
            # The next look finds out anew what is there.
            self._applied = None
            text = problem.sentence() if isinstance(problem, HedgerowError) else f"The balancer failed: {problem}"
            log.warning("%s", text)
            return Routed(stale=True, problem=text, again_s=1.0)

    def stop(self, grace_s: float) -> None:
        self._applied, self._asked_for = None, ""
        exit_fd = self._process.exit_fd()
        if exit_fd is not None:
            # "Take nothing new, finish what is inside", while SIGTERM would cut it.
            self._signal_master(signal.SIGUSR1)
            self._wait_until_empty(exit_fd, self._clock.monotonic_s() + grace_s)
            os.close(exit_fd)
            self._process.stop(0.0)
        self._process.forget()

    def _wait_until_empty(self, exit_fd: int, until_s: float) -> None:
        """Until it has ended or holds only idle callers, whom it would keep for as long as they please."""
        poller = select.poll()
        poller.register(exit_fd, select.POLLIN)
        while (left_s := until_s - self._clock.monotonic_s()) > 0:
            if poller.poll(min(left_s, _LOOK_S) * 1000):
                return
            try:
                inside = self._socket.requests_inside()
            except HedgerowError:
                # One that was started by an earlier release has no such socket, or it is ending this moment.
                continue
            if not inside:
                return

    def _apply(self, table: RoutingTable, files: HaproxyFiles) -> Routed:
        if not isinstance(self._process.observe(), Running):
            self._applied = None
            return self._start(files)
        self._watch()
        running = self._running_structure()
        if running is None:
            return self._silent()
        self._silent_since_s = None
        if running != files.structure:
            return self._reload(files)
        self._failures, self._problem = 0, ""
        self._synchronise(table)
        base = f"http://127.0.0.1:{self._options.port}/services"
        return Routed({endpoint: scoring_url(f"{base}/{endpoint}") for endpoint in served(table)}, settled=True)

    def _start(self, files: HaproxyFiles) -> Routed:
        now_s = self._clock.monotonic_s()
        if now_s < self._not_before_s:
            return Routed(problem=self._problem, lasting=True, again_s=self._not_before_s - now_s)
        delay_s = _BACKOFF.delay_s(self._failures, random.random)
        self._failures += 1
        # From the second try on it ended before it ever answered.
        said = self._process.tail(3).strip() if self._failures > 1 else ""
        self._problem = self._cannot_start(files)
        # Also when it starts: should it end at once, the next try comes after a while.
        self._not_before_s = now_s + max(delay_s, _LOOK_S)
        if self._problem:
            log.warning("%s", self._problem)
            return Routed(problem=self._problem, lasting=True, again_s=max(delay_s, _BACKOFF.first_s))
        argv = [str(self._program), "-W", "-db", "-S", f"unix@{MASTER_FILE},mode,600", "-f", CONFIG_FILE]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self._process.start(ProcessSpec(argv=argv, cwd=str(self._folder), environment={"PATH": path}))
        log.info("The balancer listens on port %d", self._options.port)
        self._asked(files)
        self._watch()
        self._problem = f"The balancer ended right after its start: {said}" if said else ""
        return Routed(problem=self._problem, again_s=_LOOK_S)

    def _cannot_start(self, files: HaproxyFiles) -> str:
        """Why not, as a sentence; "" when it can."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._options.port))
            except OSError:
                return PortTaken(port=self._options.port, host="127.0.0.1", option="--balancer-port").sentence()
        return self._write_checked(files)

    def _reload(self, files: HaproxyFiles) -> Routed:
        now_s = self._clock.monotonic_s()
        if self._asked_for == files.structure and now_s - self._asked_at_s < _SILENCE_S:
            return Routed(stale=True, again_s=_LOOK_S)
        problem = self._write_checked(files)
        if problem:
            # What runs goes on as it is.
            log.error("%s", problem)
            return Routed(stale=True, problem=problem, lasting=True, again_s=_SILENCE_S)
        log.info("The balancer is reloaded")
        self._applied = None
        self._asked(files)
        self._signal_master(signal.SIGUSR2)
        return Routed(stale=True, again_s=_LOOK_S)

    def _synchronise(self, table: RoutingTable) -> None:
        if self._applied == table:
            return
        # Where we do not know we ask: a server must not be out of use for a moment only because we are new here.
        old = self._socket.slots() if self._applied is None else slots_of(self._applied)
        for command in commands(old, table):
            self._socket.do(command)
        if self._applied is None or self._applied.traffic != table.traffic:
            self._socket.replace_map(map_lines(table))
        self._applied = table

    def _running_structure(self) -> str | None:
        try:
            return self._socket.description()
        except HedgerowError:
            return None

    def _silent(self) -> Routed:
        """It runs but its socket does not answer: it is starting, or stuck."""
        now_s = self._clock.monotonic_s()
        if self._silent_since_s is None:
            self._silent_since_s = now_s
        if now_s - self._silent_since_s < _SILENCE_S:
            return Routed(stale=True, again_s=_LOOK_S)
        log.error("The balancer does not answer and is ended: %s", self._process.tail(5).strip())
        self._process.stop(0.0)
        self._silent_since_s = None
        return Routed(problem="The balancer did not answer and is started again", again_s=_LOOK_S)

    def _write_checked(self, files: HaproxyFiles) -> str:
        """Put the files in place once HAProxy itself finds them right; says why not, and then leaves the old ones."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        atomic_write(self._folder / MAP_FILE, files.traffic_map.encode())
        candidate = self._folder / f"{CONFIG_FILE}.new"
        atomic_write(candidate, files.config.encode())
        try:
            check = subprocess.run(
                [self._program, "-c", "-q", "-f", candidate.name],
                cwd=self._folder,
                capture_output=True,
                text=True,
                timeout=_CHECK_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"The balancer did not check its configuration within {_CHECK_TIMEOUT_S:.0f} s"
        if check.returncode != 0:
            said = " ".join((check.stderr or check.stdout).split())[-500:]
            return f"The balancer refuses its configuration: {said}"
        candidate.replace(self._folder / CONFIG_FILE)
        return ""

    def _asked(self, files: HaproxyFiles) -> None:
        self._asked_for, self._asked_at_s = files.structure, self._clock.monotonic_s()

    def _watch(self) -> None:
        if self._watching:
            return
        exit_fd = self._process.exit_fd()
        if exit_fd is not None:
            self._watching = True
            self._loop.watch_end(exit_fd, self._ended)

    def _ended(self) -> None:
        self._watching = False
        self._applied = None
        self._on_end()

    def _signal_master(self, signum: signal.Signals) -> None:
        """Only the first process: the others of its group would die of a signal that means "reload" to it."""
        seen = self._process.observe()
        if not isinstance(seen, Running):
            return
        try:
            fd = os.pidfd_open(seen.pid)
        except ProcessLookupError:
            return
        try:
            if is_alive(seen.pid, seen.start_time_ticks):
                signal.pidfd_send_signal(fd, signum)
        except ProcessLookupError:
            return
        finally:
            os.close(fd)
