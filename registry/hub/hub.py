"""The hub's loop, on one screen: messages in groups, desired states when something changed, all on one thread.

    devices ──▶ broker ──▶ link's thread ──▶ inbox (bounded) ──▶ this loop ──▶ database, then answers
                                     server's wake-ups, every 30 s at least ──▶ desired states

The loop never dies of what it is sent or of what is away: a database that does not answer is waited for (devices send
again what they get no answer for), a message that trips the code is dropped alone.
"""

from __future__ import annotations

import logging
import random
import selectors
from collections.abc import Callable, Collection, Sequence

from hedgerow.backoff import Backoff
from hedgerow.clock import Clock
from hedgerow.errors import UnavailableError
from registry.errors import DatabaseUnavailable, LeaseLost
from registry.hub.desired import DesiredStates
from registry.hub.inbox import Inbox
from registry.hub.intake import Handled, Intake
from registry.hub.link import Downlink, Link, Uplink
from registry.hub.methods import Methods
from registry.hub.notes import Notes
from registry.hub.rollouts.rollouts import Rollouts
from registry.stop_signals import StopSignals
from registry.wakeups import WakeupReceiver

log = logging.getLogger(__name__)

SETTLE_EVERY_S = 30.0
# A lost wake-up or a lost database is made good for after this long at most.
_SETTLE_AGAIN_S = 2.0
_GROUP_MESSAGES = 1_000
_GROUP_BYTES = 4 * 1024 * 1024
_DATABASE_BACKOFF = Backoff(first_s=0.1, cap_s=5.0, immediate_s=0.05)


class Hub:
    """Made by the composition root from its parts."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        link: Link,
        wakeups: WakeupReceiver,
        intake: Intake,
        desired: DesiredStates,
        notes: Notes,
        clock: Clock,
        methods: Methods | None = None,
        method_wakeups: WakeupReceiver | None = None,
        rollouts: Rollouts | None = None,
    ) -> None:
        self._rollouts = rollouts
        self._methods, self._method_wakeups = methods, method_wakeups
        self._inbox, self._link, self._wakeups = inbox, link, wakeups
        self._intake, self._desired, self._notes, self._clock = intake, desired, notes, clock
        self._settle_at_s = clock.monotonic_s()
        self._republish = False

    def run(self, stop: StopSignals) -> None:
        """Returns when told to stop; what was not answered by then is sent again to the next hub."""
        with selectors.DefaultSelector() as selector:
            for source in (stop, self._inbox, self._wakeups, self._method_wakeups):
                if source is not None:
                    selector.register(source.fileno(), selectors.EVENT_READ)
            while not stop.requested():
                selector.select(self._patience_s())
                self._tend_rollouts()
                self._settle_if_due()
                self._handle_waiting(stop)
                self._tend_methods()

    def _patience_s(self) -> float:
        settle_s = max(0.0, self._settle_at_s - self._clock.monotonic_s())
        methods_s = None if self._methods is None else self._methods.wake_in_s(self._clock.monotonic_s())
        rollouts_s = None if self._rollouts is None else self._rollouts.wake_in_s(self._clock.monotonic_s())
        return min(due_s for due_s in (settle_s, methods_s, rollouts_s, self._intake.wake_in_s()) if due_s is not None)

    def _tend_rollouts(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._rollouts is None or self._rollouts.wake_in_s(now_s) > 0.0:
            return
        try:
            if self._rollouts.tend(self._clock.now(), now_s):
                self._settle_at_s = now_s
        except (DatabaseUnavailable, LeaseLost) as problem:
            log.warning("Rollouts have to wait: %s", problem)
            self._rollouts.postpone(now_s)
        except Exception:
            log.exception("Rollouts could not be looked after")
            self._rollouts.postpone(now_s)

    def _tend_methods(self) -> None:
        if self._methods is None:
            return
        if self._method_wakeups is not None and self._method_wakeups.wait(0.0):
            self._methods.hurry()
        if self._methods.wake_in_s(self._clock.monotonic_s()) > 0.0:
            return
        try:
            self._publish(self._methods.tend(self._clock.now(), self._clock.monotonic_s()))
        except DatabaseUnavailable as problem:
            log.warning("Direct methods have to wait: %s", problem)
            self._methods.postpone(self._clock.monotonic_s())
        except Exception:
            log.exception("Direct methods could not be looked after")
            self._methods.postpone(self._clock.monotonic_s())

    def _settle_if_due(self) -> None:
        connected, woken = self._inbox.take_connected(), self._wakeups.wait(0.0)
        self._republish = connected or self._republish
        now_s = self._clock.monotonic_s()
        if not (connected or woken) and now_s < self._settle_at_s:
            return
        self._settle_at_s = now_s + SETTLE_EVERY_S
        if woken and self._rollouts is not None:
            # Somebody may have begun one, or steered it.
            self._rollouts.hurry()
            self._tend_rollouts()
            self._settle_at_s = now_s + SETTLE_EVERY_S
        settled = self._publish_desired(lambda: self._desired.settle(self._clock.now(), now_s))
        self._tell_silence()
        if settled and self._republish:
            # A broker that was away may have forgotten what it retained.
            self._republish = not self._publish_desired(self._desired.stored)

    def _tell_silence(self) -> None:
        try:
            self._intake.tell_silence(self._clock.now())
        except DatabaseUnavailable as problem:
            log.warning("Who is offline is told later: %s", problem)

    def _publish_desired(self, made: Callable[[], Sequence[Downlink]]) -> bool:
        """Whatever goes wrong here is tried again soon, and keeps no telemetry waiting."""
        try:
            self._publish(made())
            self._intake.record_events(self._clock.now())
            self._heard_for_rollouts(self._desired.take_told())
        except (DatabaseUnavailable, LeaseLost) as problem:
            log.warning("Desired states have to wait: %s", problem)
        except Exception:
            log.exception("Desired states could not be settled")
        else:
            return True
        self._settle_at_s = self._clock.monotonic_s() + _SETTLE_AGAIN_S
        return False

    def _handle_waiting(self, stop: StopSignals) -> None:
        dropped = self._inbox.take_dropped()
        self._notes.count("dropped", "Messages came faster than the database takes them", self._clock.monotonic_s(), dropped)
        group = self._inbox.take(_GROUP_MESSAGES, _GROUP_BYTES)
        if not group and self._intake.wake_in_s() is None:
            return
        try:
            self._answer(self._patiently(group, stop))
        except Exception:
            log.exception("A group of %d messages failed; taking them one by one", len(group))
            self._one_by_one(group, stop)

    def _one_by_one(self, group: Sequence[Uplink], stop: StopSignals) -> None:
        """A poisoned message is dropped alone."""
        for uplink in group:
            try:
                self._answer(self._patiently([uplink], stop))
            except Exception:
                self._notes.counts["poisoned"] += 1
                log.exception("A %s message of device %.40r was dropped", uplink.leaf, uplink.device_uuid)

    def _patiently(self, group: Sequence[Uplink], stop: StopSignals) -> Handled | None:
        """Handle ``group`` as soon as the database lets us; None when this process should end before that."""
        failures = 0
        while True:
            try:
                return self._intake.handle(group, self._clock.now(), self._clock.monotonic_s())
            except UnavailableError as problem:
                log.warning("%d messages wait, none is acknowledged: %s", len(group), problem)
                if stop.wait(_DATABASE_BACKOFF.delay_s(failures, random.random)):
                    return None
                failures += 1

    def _answer(self, handled: Handled | None) -> None:
        if handled is None:
            return
        self._publish(handled.answers)
        self._heard_for_rollouts(handled.reported)
        if handled.greeted:
            if self._methods is not None:
                self._methods.hurry()
            self._publish_desired(
                lambda: self._desired.for_greeted(handled.greeted, self._clock.now(), self._clock.monotonic_s())
            )

    def _heard_for_rollouts(self, devices: Collection[str]) -> None:
        if self._rollouts is not None and devices:
            self._rollouts.heard(devices, self._clock.monotonic_s())

    def _publish(self, downlinks: Sequence[Downlink]) -> None:
        for downlink in downlinks:
            self._link.publish(downlink)
