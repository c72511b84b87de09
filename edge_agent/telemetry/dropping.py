"""How messages leave the buffer early, always with an account: freed for room, thinned out, or expired.

What the hub has goes silently; everything else becomes an interval of ``lost`` with its reason and the chain across it, and is
counted. An interval at the beginning of a stream moves ``base``; one inside it stays as a hole, whose row costs ``HOLE_BYTES``
that the message behind it carries in its ``size``, so the quota counts holes too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from edge_agent.telemetry.ledger import chain_at
from edge_agent.telemetry.schema import HOLE_BYTES
from hedgerow.contracts.telemetry import CHAIN_START, GapReason

EVICT_ROWS = 256
LOST_ROWS_KEPT = 1000


def evict_acked(db: sqlite3.Connection, needed_bytes: int, *, stream: str | None = None, max_rows: int = 1 << 62) -> int:
    """Free at least ``needed_bytes`` of what the hub has, the oldest first (of one stream, or of all). Returns the bytes freed,
    which may be fewer."""
    freed = 0
    while freed < needed_bytes and max_rows > 0:
        victim = _oldest(db, None if stream is None else [stream], acked=True)
        if victim is None:
            return freed
        freed += _evict_from(db, *victim, needed_bytes - freed, None)
        max_rows -= EVICT_ROWS
    return freed


def evict_oldest(db: sqlite3.Connection, needed_bytes: int, among: Collection[str]) -> int:
    """Free at least ``needed_bytes`` from the streams ``among``, the oldest first, as gaps "quota". Returns the bytes freed."""
    freed = 0
    while freed < needed_bytes:
        victim = _oldest(db, among, acked=False)
        if victim is None:
            return freed
        freed += _evict_from(db, *victim, needed_bytes - freed, "quota")
    return freed


def oldest(db: sqlite3.Connection, among: Collection[str]) -> str | None:
    """The stream with the oldest message of all."""
    found = _oldest(db, among, acked=False)
    return None if found is None else found[0]


def thin(db: sqlite3.Connection, stream: str, needed_bytes: int) -> int:
    """Remove every second message of the older half of what the hub has not, as gaps "downsampled", going on where the last call
    ended; where the older half has no two messages left, of the older three quarters, and so on: the older, the sparser.

    Returns the bytes freed, which may be fewer: messages smaller than the row of a hole are not worth it.
    """
    acked, base, last, cursor = db.execute(
        "SELECT acked, base, last, thinned FROM streams WHERE stream = ?", (stream,)
    ).fetchone()
    floor = max(acked, base)
    middle = floor + (last - floor) // 2
    cursor, fresh = (cursor, False) if floor < cursor < middle else (floor, True)
    freed = 0
    while freed < needed_bytes:
        rows = _some_after(db, stream, cursor, middle)
        if len(rows) >= 2:
            cursor, gone = _every_second(db, stream, rows, needed_bytes - freed)
            freed, fresh = freed + gone, False
            if gone <= 0:
                break
        elif not fresh:
            cursor, fresh = floor, True
        elif last - middle > 2:
            cursor, middle = floor, middle + (last - middle) // 2
        else:
            break
    db.execute("UPDATE streams SET thinned = ? WHERE stream = ?", (cursor, stream))
    return freed


def _some_after(db: sqlite3.Connection, stream: str, after: int, until: int) -> list[tuple[int, int]]:
    """(sequence, size) of the next messages."""
    return db.execute(
        "SELECT sequence, size FROM messages WHERE stream = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?",
        (stream, after, until, EVICT_ROWS),
    ).fetchall()


def _every_second(db: sqlite3.Connection, stream: str, rows: list[tuple[int, int]], needed_bytes: int) -> tuple[int, int]:
    """(up to where, bytes freed)."""
    freed, done = 0, rows[0][0]
    for sequence, _ in rows[1::2]:
        freed, done = freed + remove(db, stream, sequence, sequence, "downsampled"), sequence
        if freed >= needed_bytes:
            break
    return done, freed


def expire(db: sqlite3.Connection, now_s: float, max_rows: int) -> int:
    """Remove messages whose time is over, at most ``max_rows``, as gaps "expired". Returns how many were due; what the hub has
    stays until room is needed."""
    due = db.execute("SELECT at, id FROM expiries WHERE at <= ? ORDER BY at, id LIMIT ?", (int(now_s), max_rows)).fetchall()
    runs: dict[str, list[list[int]]] = {}
    for _, number in due:
        row = db.execute(
            "SELECT stream, sequence FROM messages JOIN streams USING (stream) WHERE id = ? AND sequence > acked", (number,)
        ).fetchone()
        if row is None:
            continue
        known = runs.setdefault(row[0], [])
        if known and known[-1][1] + 1 == row[1]:
            known[-1][1] = row[1]
        else:
            known.append([row[1], row[1]])
    for stream, intervals in runs.items():
        for first, last in intervals:
            remove(db, stream, first, last, "expired")
    db.executemany("DELETE FROM expiries WHERE at = ? AND id = ?", due)
    return len(due)


def next_expiry(db: sqlite3.Connection) -> int | None:
    """When the next message expires, in seconds of the buffer's clock."""
    row = db.execute("SELECT at FROM expiries ORDER BY at LIMIT 1").fetchone()
    return None if row is None else int(row[0])


def remove(db: sqlite3.Connection, stream: str, first: int, last: int, reason: GapReason | None) -> int:
    """Remove the messages from ``first`` to ``last`` (a message) and account for them; without a reason the hub has them all.

    Gaps between them become part of the new one. Returns the bytes freed.
    """
    base, acked = db.execute("SELECT base, acked FROM streams WHERE stream = ?", (stream,)).fetchone()
    behind = db.execute("SELECT min(sequence) FROM messages WHERE stream = ? AND sequence > ?", (stream, last)).fetchone()[0]
    holes_before = _holes_before(db, stream, behind, base)
    end_chain = chain_at(db, stream, last)
    loss_first = _behind_hole(db, stream, max(first, acked + 1))
    before_chain = chain_at(db, stream, loss_first - 1)
    freed, unacked_bytes, unacked = _delete(db, stream, first, last, acked)
    if reason is not None and unacked:
        _record_loss(db, stream, (loss_first, before_chain or CHAIN_START), (last, end_chain or CHAIN_START), reason)
        _count_dropped(db, unacked, reason)
    if first == base + 1:
        db.execute("UPDATE streams SET base = ?, base_chain = ? WHERE stream = ?", (last, end_chain, stream))
    base = _move_base_over_holes(db, stream, base, acked)
    carried = HOLE_BYTES * (_holes_before(db, stream, behind, base) - holes_before)
    if carried:
        db.execute("UPDATE messages SET size = size + ? WHERE stream = ? AND sequence = ?", (carried, stream, behind))
    carried_queued = carried if behind is not None and behind > acked else 0
    db.execute(
        "UPDATE streams SET acked_bytes = acked_bytes + ?, queued_bytes = queued_bytes + ?, queued_messages = queued_messages - ?"
        " WHERE stream = ?",
        (carried - carried_queued - (freed - unacked_bytes), carried_queued - unacked_bytes, unacked, stream),
    )
    db.execute("UPDATE totals SET kept_bytes = kept_bytes + ?", (carried - freed,))
    return freed - carried


def lose_at_the_end(db: sqlite3.Connection, stream: str, count: int, reason: GapReason) -> None:
    """``count`` messages that never made it into this file, as a gap behind the newest of the stream."""
    db.execute(
        "INSERT INTO streams (stream, last, last_chain, base, base_chain, acked, acked_bytes, queued_bytes)"
        " VALUES (?, 0, ?, 0, ?, 0, 0, 0) ON CONFLICT (stream) DO NOTHING",
        (stream, CHAIN_START, CHAIN_START),
    )
    last, chain, base, acked = db.execute(
        "SELECT last, last_chain, base, acked FROM streams WHERE stream = ?", (stream,)
    ).fetchone()
    _record_loss(db, stream, (last + 1, chain), (last + count, chain), reason)
    db.execute("UPDATE streams SET last = ? WHERE stream = ?", (last + count, stream))
    _count_dropped(db, count, reason)
    _move_base_over_holes(db, stream, base, acked)


def _count_dropped(db: sqlite3.Connection, count: int, reason: GapReason) -> None:
    db.execute("UPDATE totals SET dropped = dropped + ?", (count,))
    db.execute(
        "INSERT INTO dropped VALUES (?, ?) ON CONFLICT (reason) DO UPDATE SET messages = messages + excluded.messages",
        (reason, count),
    )


def _delete(db: sqlite3.Connection, stream: str, first: int, last: int, acked: int) -> tuple[int, int, int]:
    """Take the rows away: (bytes of all, bytes and number of those that the hub has not)."""
    between = (stream, first, last)
    freed, unacked_bytes, unacked, expiring = db.execute(
        "SELECT coalesce(sum(size), 0), coalesce(sum(size) FILTER (WHERE sequence > ?), 0),"
        " count(*) FILTER (WHERE sequence > ?), count(expires) FROM messages WHERE stream = ? AND sequence BETWEEN ? AND ?",
        (acked, acked, *between),
    ).fetchone()
    if expiring:
        db.execute(
            "DELETE FROM expiries WHERE (at, id) IN (SELECT expires, id FROM messages"
            " WHERE stream = ? AND sequence BETWEEN ? AND ? AND expires IS NOT NULL)",
            between,
        )
    db.execute("DELETE FROM messages WHERE stream = ? AND sequence BETWEEN ? AND ?", between)
    return freed, unacked_bytes, unacked


def _oldest(db: sqlite3.Connection, among: Collection[str] | None, *, acked: bool) -> tuple[str, int] | None:
    """The stream with the oldest message that may go, and how far."""
    limit = "acked" if acked else "last"
    rows = db.execute(f"SELECT stream, {limit}, base FROM streams WHERE {limit} > base").fetchall()  # noqa: S608 - one of two literals
    found: list[tuple[int, str, int]] = []
    for stream, until, base in rows:
        if among is not None and stream not in among:
            continue
        first = db.execute(
            "SELECT id, sequence FROM messages WHERE stream = ? AND sequence > ? ORDER BY sequence LIMIT 1", (stream, base)
        ).fetchone()
        if first is not None and first[1] <= until:
            found.append((first[0], stream, until))
    return min(found)[1:] if found else None


def _evict_from(db: sqlite3.Connection, stream: str, until: int, needed_bytes: int, reason: GapReason | None) -> int:
    freed, last = 0, 0
    for sequence, size in _some_after(db, stream, 0, until):
        if freed >= needed_bytes:
            break
        freed, last = freed + size, sequence
    (base,) = db.execute("SELECT base FROM streams WHERE stream = ?", (stream,)).fetchone()
    return remove(db, stream, base + 1, last, reason)


def _holes_before(db: sqlite3.Connection, stream: str, sequence: int | None, base: int) -> int:
    """Intervals of ``lost`` directly in front of a message, above ``base``."""
    if sequence is None:
        return 0
    before = db.execute(
        "SELECT coalesce(max(sequence), 0) FROM messages WHERE stream = ? AND sequence < ?", (stream, sequence)
    ).fetchone()[0]
    (count,) = db.execute(
        "SELECT count(*) FROM lost WHERE stream = ? AND first > ? AND first < ?", (stream, max(before, base), sequence)
    ).fetchone()
    return int(count)


def _record_loss(db: sqlite3.Connection, stream: str, first: tuple[int, str], last: tuple[int, str], reason: GapReason) -> None:
    """Note an interval: (first sequence, chain before it) to (last sequence, chain after it). What lies inside becomes part of
    it, neighbours of the same reason are joined to it."""
    db.execute("DELETE FROM lost WHERE stream = ? AND first >= ? AND last <= ?", (stream, first[0], last[0]))
    before = db.execute(
        "SELECT first, previous_chain FROM lost WHERE stream = ? AND last = ? AND reason = ?", (stream, first[0] - 1, reason)
    ).fetchone()
    after = db.execute(
        "SELECT first, last, chain FROM lost WHERE stream = ? AND first = ? AND reason = ?", (stream, last[0] + 1, reason)
    ).fetchone()
    if before is not None:
        db.execute("DELETE FROM lost WHERE stream = ? AND first = ?", (stream, before[0]))
        first = before
    if after is not None:
        db.execute("DELETE FROM lost WHERE stream = ? AND first = ?", (stream, after[0]))
        last = after[1:]
    db.execute("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?)", (stream, first[0], last[0], reason, first[1], last[1]))


def _behind_hole(db: sqlite3.Connection, stream: str, sequence: int) -> int:
    """``sequence``, or what follows the hole that it lies in (the hub may have had the beginning of one)."""
    row = db.execute(
        "SELECT last FROM lost WHERE stream = ? AND first < ? ORDER BY first DESC LIMIT 1", (stream, sequence)
    ).fetchone()
    return sequence if row is None else max(sequence, row[0] + 1)


def _move_base_over_holes(db: sqlite3.Connection, stream: str, before: int, acked: int) -> int:
    """What is lost directly above ``base`` is no longer here either. Returns the base; it was ``before``."""
    while True:
        (base,) = db.execute("SELECT base FROM streams WHERE stream = ?", (stream,)).fetchone()
        row = db.execute("SELECT last, chain FROM lost WHERE stream = ? AND first = ?", (stream, base + 1)).fetchone()
        if row is None:
            break
        db.execute("UPDATE streams SET base = ?, base_chain = ? WHERE stream = ?", (*row, stream))
    if base != before:
        _forget_old_losses(db, stream, base, acked)
    return int(base)


def _forget_old_losses(db: sqlite3.Connection, stream: str, base: int, acked: int) -> None:
    """Rows below ``base`` are bounded: what the hub was told is forgotten (a restored hub would hear "hub-restored"), and of
    what it was not told the two oldest become one."""
    db.execute(
        "DELETE FROM lost WHERE stream = ? AND last <= ? AND first <= (SELECT first FROM lost WHERE stream = ? AND last <= ?"
        " ORDER BY first DESC LIMIT 1 OFFSET ?)",
        (stream, min(base, acked), stream, min(base, acked), LOST_ROWS_KEPT),
    )
    rows = db.execute(
        "SELECT first, last, reason, previous_chain, chain FROM lost WHERE stream = ? AND last > ? AND last <= ? ORDER BY first"
        " LIMIT ?",
        (stream, acked, base, LOST_ROWS_KEPT + 1),
    ).fetchall()
    if len(rows) > LOST_ROWS_KEPT:
        (first, _, _, before, _), (_, last, reason, _, chain) = rows[:2]
        db.execute("DELETE FROM lost WHERE stream = ? AND first >= ? AND last <= ?", (stream, first, last))
        db.execute("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?)", (stream, first, last, reason, before, chain))
