"""The telemetry buffer's rows as the way out sees them, as functions on one SQLite connection. Knows no threads, no network.

Each stream is a row of sequences: up to ``base`` they are no longer here, up to ``acked`` the hub has them, ``last`` is the
newest. Above ``base`` every sequence is either a message or inside an interval of ``lost``, which has the reason and the hash
chain at both its ends; so what is read is without holes that nobody can explain. Messages come in through ``appending.py`` and
leave early through ``dropping.py``. All changes are made inside a transaction of the caller (``Outbox``, the only writer).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from edge_agent.telemetry.entries import START, Mark, Portion, Totals, read_properties
from edge_agent.telemetry.schema import new_epoch_id
from hedgerow.contracts.telemetry import CHAIN_START, GapReason, TelemetryGap, TelemetryHole, TelemetryMessage, extend_chain

# What a hole adds to a batch, about.
_HOLE_WIRE_BYTES = 150


def epoch(db: sqlite3.Connection) -> str:
    """The buffer's epoch. Raises sqlite3.DatabaseError for a file without one."""
    row = db.execute("SELECT value FROM facts WHERE name = 'epoch'").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the buffer has no epoch")
    return str(row[0])


def totals(db: sqlite3.Connection) -> Totals:
    """O(number of streams), however much is queued."""
    kept_bytes, dropped = db.execute("SELECT kept_bytes, dropped FROM totals").fetchone()
    messages, queued, local = db.execute(
        "SELECT sum(queued_messages * (1 - local)), sum(queued_bytes * (1 - local)), sum(queued_messages * local) FROM streams"
    ).fetchone()
    reasons = tuple(db.execute("SELECT reason, messages FROM dropped ORDER BY reason").fetchall())
    return Totals(epoch(db), messages or 0, queued or 0, kept_bytes, dropped, local or 0, reasons)


def streams(db: sqlite3.Connection, *, local: bool = False) -> dict[str, Mark]:
    """Every stream that goes to the hub (or every other) with its newest mark."""
    rows = db.execute("SELECT stream, last, last_chain FROM streams WHERE local = ?", (int(local),))
    return {name: Mark(last, chain) for name, last, chain in rows}


def settled(db: sqlite3.Connection, stream: str) -> Mark:
    """Up to where a stream was settled; START for an unknown one."""
    row = db.execute("SELECT acked, base, base_chain FROM streams WHERE stream = ?", (stream,)).fetchone()
    if row is None:
        return START
    return Mark(row[0], chain_at(db, stream, row[0]) or CHAIN_START) if row[0] >= row[1] else Mark(row[1], row[2])


def knows(db: sqlite3.Connection, stream: str, mark: Mark) -> bool:
    """False when ``mark`` cannot be a place in this stream: another writer used the same keys."""
    row = db.execute("SELECT last, base FROM streams WHERE stream = ?", (stream,)).fetchone()
    last, base = row or (0, 0)
    if mark.sequence > last:
        return False
    if mark.sequence < base:
        return True  # no longer here, so nothing speaks against it
    found = chain_at(db, stream, mark.sequence)
    return found is None or found == mark.chain


def chain_at(db: sqlite3.Connection, stream: str, sequence: int) -> str | None:
    """The chain value after ``sequence``, which is not below ``base``; None inside a hole, where nobody knows it any more."""
    row = db.execute("SELECT chain FROM messages WHERE stream = ? AND sequence = ?", (stream, sequence)).fetchone()
    if row is None:
        row = db.execute("SELECT base_chain FROM streams WHERE stream = ? AND base = ?", (stream, sequence)).fetchone()
    if row is None:
        row = db.execute("SELECT chain FROM lost WHERE stream = ? AND last = ?", (stream, sequence)).fetchone()
    if row is None:
        return CHAIN_START if sequence == 0 else None
    return str(row[0])


def settle(db: sqlite3.Connection, stream: str, mark: Mark) -> bool:
    """Take over what the hub has: forward after an acknowledgement, back after a restore. False when it cannot be true."""
    if not knows(db, stream, mark):
        return False
    row = db.execute("SELECT base, acked FROM streams WHERE stream = ?", (stream,)).fetchone()
    if row is None:
        return True
    base, acked = row
    low, high = sorted((max(acked, base), max(mark.sequence, base)))
    size, count = db.execute(
        "SELECT coalesce(sum(size), 0), count(*) FROM messages WHERE stream = ? AND sequence > ? AND sequence <= ?",
        (stream, low, high),
    ).fetchone()
    sign = 1 if mark.sequence >= acked else -1
    db.execute(
        "UPDATE streams SET acked = ?, acked_bytes = acked_bytes + ?, queued_bytes = queued_bytes - ?,"
        " queued_messages = queued_messages - ? WHERE stream = ?",
        (mark.sequence, sign * size, sign * size, sign * count, stream),
    )
    return True


def read_after(
    db: sqlite3.Connection, stream: str, mark: Mark, *, max_messages: int, max_bytes: int, holes: bool = False
) -> Portion | None:
    """What follows ``mark``: a gap, or up to ``max_bytes`` of messages (at least one); None at the end.

    With ``holes`` messages go on behind what is lost between them; without, a portion ends there and the next one is the gap.
    """
    row = db.execute("SELECT last, base, base_chain FROM streams WHERE stream = ?", (stream,)).fetchone()
    if row is None or mark.sequence >= row[0]:
        return None
    if mark.sequence < row[1]:
        return _gap_after(db, stream, mark, Mark(row[1], row[2]))
    rows = db.execute(
        "SELECT sequence, time_ms, module, body, chain, size, properties FROM messages WHERE stream = ? AND sequence > ?"
        " ORDER BY sequence LIMIT ?",
        (stream, mark.sequence, max_messages),
    )
    messages: list[TelemetryMessage] = []
    between: list[TelemetryHole] = []
    end, size = mark, 0
    for sequence, time_ms, module, body, chain, row_size, text in rows:
        if sequence != end.sequence + 1:
            if not holes or not messages:
                break
            found = _holes_between(db, stream, end.sequence, sequence)
            between += found
            size += len(found) * _HOLE_WIRE_BYTES
        if messages and size + row_size > max_bytes:
            break
        properties = read_properties(text) if text else {}
        messages.append(TelemetryMessage(sequence=sequence, time_ms=time_ms, module=module, body=body, properties=properties))
        end, size = Mark(sequence, chain), size + row_size
    if not messages:
        return _gap_after(db, stream, mark, Mark(row[0], ""))
    kept = tuple(hole for hole in between if hole.last_sequence < end.sequence)
    return Portion(stream, mark, end, tuple(messages), holes=kept, size=size)


def _holes_between(db: sqlite3.Connection, stream: str, after: int, before: int) -> list[TelemetryHole]:
    rows = db.execute(
        "SELECT first, last, reason, chain FROM lost WHERE stream = ? AND first > ? AND first < ? ORDER BY first",
        (stream, after, before),
    )
    return [TelemetryHole(first_sequence=first, last_sequence=last, reason=why, chain=chain) for first, last, why, chain in rows]


def _gap_after(db: sqlite3.Connection, stream: str, mark: Mark, base: Mark) -> Portion:
    """The first part of what is missing behind ``mark``, not further than ``base``.

    What is in ``lost`` has its own reason; everything else was acknowledged once and is missing because the hub was restored.
    A mark inside a lost interval means that its first messages arrived while they were being dropped here.
    """
    row = db.execute(
        "SELECT first, last, reason, previous_chain, chain FROM lost WHERE stream = ? AND last > ? ORDER BY first LIMIT 1",
        (stream, mark.sequence),
    ).fetchone()
    reason: GapReason = "hub-restored"
    end = base
    if row is not None and row[0] <= mark.sequence + 1:
        end, reason = Mark(row[1], row[4]), row[2]
    elif row is not None and row[0] <= base.sequence:
        end = Mark(row[0] - 1, row[3])
    if not end.chain:
        raise sqlite3.DatabaseError(f"stream {stream} has neither a message nor a gap after {mark.sequence}")
    gap = TelemetryGap(first_sequence=mark.sequence + 1, last_sequence=end.sequence, reason=reason)
    return Portion(stream, mark, end, gap=gap)


def begin_epoch(db: sqlite3.Connection) -> str:
    """A new epoch: what the hub has not acknowledged is numbered anew from 1, with its gaps in their places."""
    for (stream,) in db.execute("SELECT stream FROM streams WHERE local = 0").fetchall():
        _renumber(db, stream)
    fresh = new_epoch_id()
    db.execute("UPDATE facts SET value = ? WHERE name = 'epoch'", (fresh,))
    return fresh


def _renumber(db: sqlite3.Connection, stream: str) -> None:
    acked, base, acked_bytes = db.execute("SELECT acked, base, acked_bytes FROM streams WHERE stream = ?", (stream,)).fetchone()
    db.execute(
        "DELETE FROM expiries WHERE (at, id) IN"
        " (SELECT expires, id FROM messages WHERE stream = ? AND sequence <= ? AND expires IS NOT NULL)",
        (stream, acked),
    )
    db.execute("DELETE FROM messages WHERE stream = ? AND sequence <= ?", (stream, acked))
    db.execute("DELETE FROM lost WHERE stream = ? AND last <= ?", (stream, acked))
    chain, new_base_chain = CHAIN_START, CHAIN_START
    # New numbers are never larger than the old ones and are given in order, so none is taken.
    for first, last, message in _in_order(db, stream):
        if message is None:
            db.execute(
                "UPDATE lost SET first = ?, last = ?, previous_chain = ?, chain = ? WHERE stream = ? AND first = ?",
                (max(first, acked + 1) - acked, last - acked, chain, chain, stream, first),
            )
        else:
            fresh = TelemetryMessage(sequence=first - acked, time_ms=message[1], module=message[2], body=message[3])
            chain = extend_chain(chain, fresh)
            db.execute("UPDATE messages SET sequence = ?, chain = ? WHERE id = ?", (first - acked, chain, message[0]))
    db.execute(
        "UPDATE streams SET last = last - ?, last_chain = ?, base = ?, base_chain = ?, acked = 0, acked_bytes = 0, thinned = 0"
        " WHERE stream = ?",
        (acked, chain, max(0, base - acked), new_base_chain, stream),
    )
    db.execute("UPDATE totals SET kept_bytes = kept_bytes - ?", (acked_bytes,))


_Row = tuple[int, int, str, str]


def _in_order(db: sqlite3.Connection, stream: str) -> Iterator[tuple[int, int, _Row | None]]:
    """Messages (id, time, module, body) and lost intervals (None) of a stream as (first, last, which), by sequence.

    They may be renumbered downwards meanwhile: each portion is read whole before it is handed out.
    """
    done = 0
    while True:
        rows = db.execute(
            "SELECT sequence, sequence, id, time_ms, module, body FROM messages WHERE stream = ? AND sequence > ?"
            " ORDER BY sequence LIMIT 500",
            (stream, done),
        ).fetchall()
        until = rows[-1][0] if len(rows) == 500 else 2**63 - 1
        gaps = db.execute(
            "SELECT first, last FROM lost WHERE stream = ? AND last > ? AND first <= ? ORDER BY first", (stream, done, until)
        ).fetchall()
        merged = [(row[0], row[1], row[2:]) for row in rows] + [(first, last, None) for first, last in gaps]
        yield from sorted(merged, key=lambda one: one[0])
        if until == 2**63 - 1:
            return
        done = until
