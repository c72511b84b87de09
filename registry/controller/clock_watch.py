"""Sees when the wall clock jumps, by comparing it with the monotonic one, and writes down what collections must know of it.

A machine that slept looks like one whose clock was set ahead: its leases then last as long as it was awake, which is right too.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from registry.controller.jobs import JobTools
from registry.errors import DatabaseUnavailable
from registry.store import clock_jumps, leases

log = logging.getLogger(__name__)
EVERY_S = 10.0
# Clocks are slewed, and looks come late on a busy machine; no lease is as short as this.
TOLERANCE_S = 60.0


class ClockWatch:
    """Made by the composition root; works in the controller's thread. ``longest_s``: the longest lease that content can have."""

    def __init__(self, tools: JobTools, longest_s: float) -> None:
        self._tools, self._longest_s = tools, longest_s
        self._wall, self._monotonic_s = tools.clock.now(), tools.clock.monotonic_s()

    def begin(self) -> None:
        self._tools.loop.after(EVERY_S, self._look_again)

    def look(self) -> None:
        """Compare, and write a jump down. Raises DatabaseUnavailable, LeaseLost; the next look then sees the same jump."""
        now, monotonic_s = self._tools.clock.now(), self._tools.clock.monotonic_s()
        expected = self._wall + timedelta(seconds=monotonic_s - self._monotonic_s)
        jumped_s = (now - expected).total_seconds()
        if abs(jumped_s) > TOLERANCE_S:
            with self._tools.database.write() as connection:
                leases.check(connection, self._tools.lease())
                before = clock_jumps.read(connection)
                clock_jumps.write(connection, clock_jumps.after_jump(before, expected, now, self._longest_s))
            log.warning("The clock was set %s by %.0f s", "ahead" if jumped_s > 0 else "back", abs(jumped_s))
        self._wall, self._monotonic_s = now, monotonic_s

    def _look_again(self) -> None:
        try:
            self.look()
        except DatabaseUnavailable as problem:
            log.warning("A jump of the clock is not written down yet: %s", problem.sentence())
        self._tools.loop.after(EVERY_S, self._look_again)
