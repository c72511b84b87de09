"""Asks for a garbage collection when the last one is long enough ago; it is then worked off as one that somebody asked for.

How long ago is told by the records, so that a control plane which is started every morning collects, too. What the clock
says of collections in the future is not believed.
"""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import Connection

from hedgerow.contracts.api import CollectGarbage
from hedgerow.contracts.names import BLOBS_COLLECT
from hedgerow.contracts.work import ENDED, Activity
from registry.controller.jobs import JobTools
from registry.errors import DatabaseUnavailable
from registry.store import activities, blobs, events, leases

log = logging.getLogger(__name__)
# Not in the first moments of a control plane, when everybody waits for it.
FIRST_S = 600.0
# After a collection that failed, and while one is under way.
AGAIN_S = 3600.0
_LOOKED_AT = 50


class GarbageSchedule:
    """Made by the composition root; everything happens in the controller's thread. ``every_s`` 0: only when asked for."""

    def __init__(self, tools: JobTools, every_s: float) -> None:
        self._tools, self._every_s = tools, every_s

    def begin(self, first_s: float = FIRST_S) -> None:
        if self._every_s > 0:
            self._later(first_s)

    def _look(self) -> None:
        try:
            with self._tools.database.write() as connection:
                wait_s = self._asked(connection)
        except DatabaseUnavailable as problem:
            log.warning("No garbage is collected for now: %s", problem.sentence())
            wait_s = AGAIN_S
        if wait_s == 0.0:
            self._tools.wakeups.wake("controller")
        self._later(wait_s or AGAIN_S)

    def _asked(self, connection: Connection) -> float:
        """0 when a collection was asked for; otherwise the seconds after which to look again."""
        leases.check(connection, self._tools.lease())
        now = self._tools.clock.now()
        known = activities.newest(connection, _LOOKED_AT, kind=BLOBS_COLLECT)
        # What never was collected is as old as the oldest content; without content there is nothing to do.
        since = last_done(known, now) or blobs.oldest(connection)
        wait_s = due_in_s(since, now, self._every_s)
        if wait_s > 0.0:
            return wait_s
        if any(activity.state not in ENDED for activity in known):
            return AGAIN_S
        activity_id = activities.create(
            connection, kind=BLOBS_COLLECT, subject="blobs", request=CollectGarbage(dry_run=False), now=now
        )
        events.record(
            connection,
            kind="collection.requested",
            subject=f"activity/{activity_id}",
            actor=events.system("controller"),
            now=now,
            details={"dry_run": "false", "every_s": f"{self._every_s:g}"},
        )
        return 0.0

    def _later(self, wait_s: float) -> None:
        self._tools.loop.after(min(wait_s, self._every_s), self._look)


def last_done(known: list[Activity], now: datetime) -> datetime | None:
    """When the last collection that freed something (or looked and found nothing) ended."""
    ends = [
        activity.ended_at
        for activity in known
        if activity.state == "succeeded" and activity.result.get("dry_run") != "true" and activity.ended_at is not None
    ]
    return max((end for end in ends if end <= now), default=None)


def due_in_s(since: datetime | None, now: datetime, every_s: float) -> float:
    """Seconds until a collection is due whose last one was at ``since`` (None: there is nothing to collect); 0 now."""
    if since is None:
        return every_s
    elapsed_s = (now - since).total_seconds()
    # Content from the future (a clock that was set back) is content of unknown age.
    return max(0.0, every_s - elapsed_s) if elapsed_s >= 0 else 0.0
