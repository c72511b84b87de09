"""The age of one buffer file (``age.py``), kept in it so that it goes on after a restart of the agent or of the machine."""

from __future__ import annotations

import sqlite3

import msgspec

from edge_agent.telemetry.age import Anchor, Moment, age_s, anchor_now
from hedgerow.clock import Clock, unix_ms

ANCHOR_EVERY_S = 300.0


class BufferAge:
    """``boot`` is the kernel's boot id. ``load`` it when a file is opened, ``keep`` it with every commit."""

    def __init__(self, clock: Clock, boot: str) -> None:
        self._clock = clock
        self._boot = boot
        self._anchor: Anchor | None = None
        self._kept_s = 0.0

    def load(self, db: sqlite3.Connection) -> None:
        """Go on with the age in this file; a damaged one begins anew."""
        row = db.execute("SELECT value FROM facts WHERE name = 'age'").fetchone()
        try:
            before = None if row is None else msgspec.json.decode(row[0], type=Anchor)
        except (msgspec.DecodeError, UnicodeError):
            before = None
        self._anchor = anchor_now(before, self._moment())
        self._kept_s = float("-inf")

    def keep(self, db: sqlite3.Connection) -> None:
        """Write it down, now and then."""
        now_s = self._clock.monotonic_s()
        if self._anchor is None or now_s < self._kept_s + ANCHOR_EVERY_S:
            return
        self._anchor, self._kept_s = anchor_now(self._anchor, self._moment()), now_s
        text = msgspec.json.encode(self._anchor).decode()
        db.execute("INSERT INTO facts VALUES ('age', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (text,))

    def seconds(self) -> float:
        """The age now; 0 before a file was opened."""
        return 0.0 if self._anchor is None else age_s(self._anchor, self._moment())

    def _moment(self) -> Moment:
        return Moment(self._boot, self._clock.monotonic_s(), unix_ms(self._clock.now()))
