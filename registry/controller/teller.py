"""Tells the followers of one activity how far it is: collects news, writes them as events, keeps the log bounded."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hedgerow.clock import Clock
from registry.errors import DatabaseUnavailable
from registry.store import activities
from registry.store.database import Database
from registry.store.leases import Lease
from registry.wakeups import Wakeups

LOG_BYTES_MAX = 512 * 1024
_EVENT_CHARACTERS = 16_000
_LINE_CHARACTERS = 2_000
log = logging.getLogger(__name__)


class Teller:
    """News are cheap to add and are written together by :meth:`tell`."""

    def __init__(self, database: Database, wakeups: Wakeups, clock: Clock, lease: Callable[[], Lease], activity_id: str) -> None:
        self._database, self._wakeups, self._clock, self._lease = database, wakeups, clock, lease
        self._id = activity_id
        self._progress, self._step = 0.0, "started"
        self._lines: list[str] = []
        self._left = LOG_BYTES_MAX
        self._news = False

    def show(self, progress: float, step: str) -> None:
        """How far the work is (0 to 1, never back) and what it does now; an empty ``step``: what it did before."""
        now = (max(self._progress, min(1.0, progress)), step or self._step)
        if now != (self._progress, self._step):
            self._progress, self._step = now
            self._news = True

    def add_line(self, text: str) -> None:
        """A line for the log; when the log is full, one last line says so."""
        if self._left <= 0 or not text.strip():
            return
        line = text if len(text) <= _LINE_CHARACTERS else f"{text[:_LINE_CHARACTERS]}…"
        self._left -= len(line) + 1
        # PostgreSQL's text cannot hold NUL.
        self._lines.append(line.replace("\0", "\ufffd"))
        if self._left <= 0:
            self._lines.append(f"(the log is longer; no more than {LOG_BYTES_MAX // 1024} kB of it are kept)")
        self._news = True

    def tell(self) -> bool:
        """Write what is new; False when somebody asked to cancel. A database that is away hears it the next time."""
        if not self._news:
            return True
        chunk, rest = self._next_lines()
        try:
            with self._database.write() as connection:
                go_on = activities.report(
                    connection,
                    self._lease(),
                    self._id,
                    progress=self._progress,
                    step=self._step,
                    log="\n".join(chunk),
                    now=self._clock.now(),
                )
        except DatabaseUnavailable as problem:
            log.warning("News of activity %s wait: %s", self._id, problem.sentence())
            return True
        self._lines, self._news = rest, bool(rest)
        self._wakeups.wake("server")
        return self.tell() if go_on and rest else go_on

    def _next_lines(self) -> tuple[list[str], list[str]]:
        size = 0
        for number, line in enumerate(self._lines):
            size += len(line) + 1
            if size > _EVENT_CHARACTERS and number:
                return self._lines[:number], self._lines[number:]
        return self._lines, []
