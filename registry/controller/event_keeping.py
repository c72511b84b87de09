"""Once a day old events are deleted, in small transactions between which everything else goes on."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from registry.controller.jobs import JobTools
from registry.errors import DatabaseUnavailable
from registry.store import events, leases
from registry.store.event_retention import sweep

log = logging.getLogger(__name__)
# Not in the first moments of a control plane, when everybody waits for it.
FIRST_S, EVERY_S = 60.0, 86_400.0
_RETRY_S, _PAUSE_S = 60.0, 0.1
_BATCH = 500


class EventKeeping:
    """Made by the composition root; everything happens in the controller's thread. ``keep_days`` 0: nothing is deleted."""

    def __init__(self, tools: JobTools, keep_days: int) -> None:
        self._tools, self._keep_days = tools, keep_days

    def begin(self, first_s: float = FIRST_S) -> None:
        if self._keep_days > 0:
            self._tools.loop.after(first_s, self._sweep)

    def _sweep(self) -> None:
        try:
            self._go_on(self._tools.clock.now() - timedelta(days=self._keep_days), 0, told=False)
        except OverflowError:
            log.info("Events are kept for ever: there is no time %d days ago", self._keep_days)

    def _go_on(self, older_than: datetime, after: int, *, told: bool) -> None:
        """One transaction; the first that deletes something tells of it."""
        tools = self._tools
        try:
            with tools.database.write() as connection:
                leases.check(connection, tools.lease())
                swept = sweep(connection, older_than=older_than, after=after, limit=_BATCH)
                if swept.deleted and not told:
                    events.record(
                        connection,
                        kind="events.deleted",
                        subject="events/old",
                        actor=events.system("controller"),
                        now=tools.clock.now(),
                        details={"before": older_than.isoformat(timespec="seconds"), "keep_days": str(self._keep_days)},
                    )
        except DatabaseUnavailable as problem:
            log.warning("Old events stay for now: %s", problem.sentence())
            tools.loop.after(_RETRY_S, lambda: self._go_on(older_than, after, told=told))
            return
        reached, known = swept.reached, told or swept.deleted > 0
        if reached is None:
            tools.loop.after(EVERY_S, self._sweep)
        else:
            tools.loop.after(_PAUSE_S, lambda: self._go_on(older_than, reached, told=known))
