"""The controller's story: take the lease, settle what an earlier one left, then look whenever something may be new.

Three things make it look: a wake-up from the server, something of its own (a process that ended, a time that has come), and,
since wake-ups may be lost, ten seconds of quiet.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

from registry.controller.event_loop import Timer
from registry.controller.jobs import Jobs, JobTools
from registry.controller.lease_keeper import RENEW_S, LeaseKeeper
from registry.controller.services.reconcile import Services
from registry.errors import DatabaseUnavailable
from registry.store import activities, runs
from registry.wakeups import WakeupReceiver

QUIET_S = 10.0
RETRY_S = 1.0
# Less than `hedgerow up` waits before it ends us by force.
STOP_GRACE_S = 8.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StopRules:
    """When this process ends, and what ends with it."""

    watch_parent: bool
    stop_services: bool


class Controller:
    """Made by the composition root; :meth:`run` returns when asked to stop."""

    def __init__(
        self, tools: JobTools, keeper: LeaseKeeper, receiver: WakeupReceiver, jobs: Jobs, services: Services, rules: StopRules
    ) -> None:
        self._tools, self._keeper, self._receiver = tools, keeper, receiver
        self._jobs, self._services, self._rules = jobs, services, rules
        self._loop = tools.loop
        self._next_look: Timer | None = None
        self._next_settle: Timer | None = None
        self._stop_services = False

    def run(self, on_ready: Callable[[], None]) -> None:
        """Raises LeaseLost when another controller has taken over; nothing more is written then."""
        self._recover()
        self._loop.watch(self._receiver.fileno(), self._woken)
        self._loop.on_signals((signal.SIGTERM, signal.SIGINT), self._asked_to_stop)
        if self._rules.watch_parent:
            self._watch_parent()
        self._loop.after(RENEW_S, self._renew)
        self._look()
        on_ready()
        self._loop.run()
        self._wind_up()

    def look_at_services(self) -> None:
        """Something about services may be new: look at them in this turn of the loop, once."""
        self._settle_after(0.0)

    def _recover(self) -> None:
        self._jobs.sweep()
        self._services.begin()
        now = self._tools.clock.now()
        with self._tools.database.write() as connection:
            settled = activities.recover(connection, self._keeper.lease(), now)
            runs.settle(connection, self._keeper.lease(), now)
        if settled:
            log.warning("An earlier controller left %d activities unfinished: %s", len(settled), ", ".join(settled))
            self._tools.wakeups.wake("server")

    def _woken(self) -> None:
        self._receiver.wait(0.0)
        self._look()

    def _look(self) -> None:
        """Everything that others may have written."""
        delay_s = QUIET_S
        try:
            with self._tools.database.write() as connection:
                doomed = activities.cancel_requested(connection)
                self._services.deploys.cancel(connection, doomed)
                runs.settle(connection, self._keeper.lease(), self._tools.clock.now())
            self._jobs.cancel(doomed)
            self._jobs.take()
            self._services.deploys.take()
        except DatabaseUnavailable as problem:
            log.warning("%s", problem.sentence())
            delay_s = RETRY_S
        self._settle()
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = self._loop.after(delay_s, self._look)

    def _settle(self) -> None:
        if self._next_settle is not None:
            self._next_settle.cancel()
            self._next_settle = None
        try:
            due_s = self._services.settle()
        except DatabaseUnavailable as problem:
            log.warning("%s", problem.sentence())
            due_s = RETRY_S
        if due_s is not None:
            self._settle_after(due_s)

    def _settle_after(self, delay_s: float) -> None:
        due = self._loop.after(delay_s, self._settle)
        if self._next_settle is not None:
            later = max(due, self._next_settle)
            later.cancel()
            due = min(due, self._next_settle)
        self._next_settle = due

    def _renew(self) -> None:
        delay_s = RENEW_S
        try:
            self._keeper.renew()
        except DatabaseUnavailable as problem:
            log.warning("%s", problem.sentence())
            delay_s = RETRY_S
        self._loop.after(delay_s, self._renew)

    def _watch_parent(self) -> None:
        stdin = sys.stdin.fileno()
        try:
            self._loop.watch(stdin, lambda: self._parent_spoke(stdin))
        except PermissionError:  # a file or /dev/null: there is no parent to listen to
            self._loop.stop()

    def _parent_spoke(self, fd: int) -> None:
        # A parent that is gone has not asked for anything: what serves goes on serving.
        if os.read(fd, 4096) == b"":
            log.warning("The process that started this one is gone")
            self._loop.stop()

    def _asked_to_stop(self) -> None:
        self._stop_services = self._rules.stop_services
        self._loop.stop()

    def _wind_up(self) -> None:
        self._jobs.stop()
        try:
            if self._stop_services:
                self._services.stop(STOP_GRACE_S)
            now = self._tools.clock.now()
            with self._tools.database.write() as connection:
                activities.give_back(connection, self._keeper.lease(), now)
                runs.settle(connection, self._keeper.lease(), now)
            self._keeper.release()
        except DatabaseUnavailable as problem:
            # The next controller finds what we could not write.
            log.warning("%s", problem.sentence())
        self._tools.wakeups.wake("server")
