"""What can still be read of a damaged buffer goes into the new one; the rest becomes a gap "damaged".

The new file has a new epoch, so messages are numbered anew, in their order. Only what the hub had not acknowledged is wanted. The
work is bounded: what is not read within the budget is given up and told as lost.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.telemetry.appending import Appender
from edge_agent.telemetry.dropping import lose_at_the_end
from edge_agent.telemetry.entries import Entry
from edge_agent.telemetry.schema import HOLE_BYTES, has_properties, size_of

BUDGET_S = 10.0
CHUNK = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a stream had that the hub has not: sequences from behind ``after`` up to ``last``."""

    after: int
    last: int
    local: bool


def wanted_of(db: sqlite3.Connection) -> dict[str, Wanted]:
    """Every stream with something unacknowledged. Raises sqlite3.DatabaseError."""
    rows = db.execute("SELECT stream, max(acked, base), last, local FROM streams WHERE last > acked").fetchall()
    return {stream: Wanted(after, last, bool(local)) for stream, after, last, local in rows}


def carry_over(into: sqlite3.Connection, damaged: Path, remembered: Mapping[str, Wanted]) -> None:
    """Into a new file, in one transaction; ``remembered`` is what was known of the damaged one's streams. What goes wrong here
    must not keep the new file from being used."""
    try:
        into.execute("BEGIN IMMEDIATE")
        saved, lost = _salvage(damaged, into, remembered)
        into.execute("COMMIT")
        log.warning("%d messages were read from the damaged buffer, %d are lost", saved, lost)
    except (OSError, sqlite3.DatabaseError) as problem:
        log.error("nothing could be carried over from the damaged buffer: %s", problem)
        if into.in_transaction:
            into.execute("ROLLBACK")


def _salvage(damaged: Path, into: sqlite3.Connection, remembered: Mapping[str, Wanted]) -> tuple[int, int]:
    """(messages carried over, messages given up)."""
    until_s = time.monotonic() + BUDGET_S
    saved = lost = 0
    with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as db:
        wanted = dict(remembered)
        with contextlib.suppress(sqlite3.DatabaseError):
            wanted.update(wanted_of(db))
        for stream, what in wanted.items():
            carried, given_up = _stream(db, into, stream, what, until_s)
            saved, lost = saved + carried, lost + given_up
    return saved, lost


def _stream(db: sqlite3.Connection, into: sqlite3.Connection, stream: str, what: Wanted, until_s: float) -> tuple[int, int]:
    done, saved, lost = what.after, 0, 0
    appender = Appender(into)
    for sequence, time_ms, module, body, properties in _readable(db, stream, what, until_s):
        missing = sequence - done - 1
        if missing:
            _give_up(appender, into, stream, missing, local=what.local)
        entry, data = Entry(stream, module, time_ms, body, local=what.local, properties=properties), body.encode()
        size = size_of(len(data) + entry.properties_bytes)
        appender.add(entry, data, size + (HOLE_BYTES if missing and saved else 0), None)
        saved, lost, done = saved + 1, lost + missing, sequence
    appender.flush()
    if done < what.last:
        _give_up(appender, into, stream, what.last - done, local=what.local)
    return saved, lost + what.last - done


_Read = tuple[int, int, str, str, str | None]


def _readable(db: sqlite3.Connection, stream: str, what: Wanted, until_s: float) -> Iterator[_Read]:
    """Messages that can be read and make sense, by sequence; an unreadable piece is stepped over."""
    done = what.after
    # A damaged file may be one of an agent of before.
    column = "properties" if _has_properties(db) else "NULL"
    while done < what.last and time.monotonic() < until_s:
        upto = min(done + CHUNK, what.last)
        with contextlib.suppress(sqlite3.DatabaseError):
            found = db.execute(
                f"SELECT sequence, time_ms, module, body, {column} FROM messages"  # noqa: S608 - one of two literals
                " WHERE stream = ? AND sequence > ? AND sequence <= ? ORDER BY sequence",
                (stream, done, upto),
            )
            for sequence, time_ms, module, body, properties in found:
                whole = isinstance(time_ms, int) and isinstance(module, str) and isinstance(body, str)
                if whole and isinstance(sequence, int) and done < sequence <= upto:
                    done = sequence
                    yield sequence, time_ms, module, body, properties if isinstance(properties, str) else None
        done = upto


def _has_properties(db: sqlite3.Connection) -> bool:
    try:
        return has_properties(db)
    except sqlite3.DatabaseError:
        return False


def _give_up(appender: Appender, into: sqlite3.Connection, stream: str, count: int, *, local: bool) -> None:
    """Tell of messages that are lost, behind what was added so far; a module's input is not told."""
    if local:
        return
    appender.flush()
    lose_at_the_end(into, stream, count, "damaged")
