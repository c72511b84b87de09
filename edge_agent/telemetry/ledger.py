"""The telemetry buffer's rows and rules, as functions on one SQLite connection. Knows no threads and no network.

Each stream is a row of sequences without holes: up to ``base`` they are no longer here, up to ``acked`` the hub has them,
``last`` is the newest. What left without having been acknowledged is an interval in ``lost``, with its reason and the hash
chain at both its ends. All changes are made inside a transaction of the caller (``Outbox``, the only writer).
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from hedgerow.contracts.telemetry import CHAIN_START, GapReason, TelemetryGap, TelemetryMessage, extend_chain

FORMAT = 1
EVICT_ROWS = 256
REMEMBERED_IDS = 100_000
# SQLite's page, and what a message needs on it beside its body: the chain value, names, numbers; its index entry.
PAGE_BYTES = 4096
ROW_BYTES = 120
INDEX_BYTES = 40
LOST_ROWS_KEPT = 1000

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (one INTEGER PRIMARY KEY CHECK (one = 1), kept_bytes INTEGER NOT NULL, dropped INTEGER NOT NULL,
  ids INTEGER NOT NULL);
CREATE TABLE streams (stream TEXT PRIMARY KEY,
  last INTEGER NOT NULL, last_chain TEXT NOT NULL,
  base INTEGER NOT NULL, base_chain TEXT NOT NULL,
  acked INTEGER NOT NULL, acked_bytes INTEGER NOT NULL, queued_bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE messages (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, sequence INTEGER NOT NULL, time_ms INTEGER NOT NULL,
  module TEXT NOT NULL, body TEXT NOT NULL, chain TEXT NOT NULL, size INTEGER NOT NULL);
CREATE UNIQUE INDEX messages_key ON messages (stream, sequence);
CREATE TABLE lost (stream TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, reason TEXT NOT NULL,
  previous_chain TEXT NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (stream, first)) WITHOUT ROWID;
CREATE TABLE ids (id INTEGER PRIMARY KEY,
  module TEXT NOT NULL, key TEXT NOT NULL, stream TEXT NOT NULL, sequence INTEGER NOT NULL);
CREATE UNIQUE INDEX ids_key ON ids (module, key);
"""


@dataclass(frozen=True)
class Mark:
    """A place in a stream: everything up to ``sequence``, and the chain value there."""

    sequence: int
    chain: str


START = Mark(0, CHAIN_START)


@dataclass(frozen=True)
class Receipt:
    """Where a message was stored; ``repeated`` when its idempotency key was known already."""

    stream: str
    sequence: int
    repeated: bool


@dataclass(frozen=True)
class Portion:
    """What follows a mark: consecutive messages, or a gap. ``end`` is the mark after it."""

    stream: str
    begin: Mark
    end: Mark
    messages: tuple[TelemetryMessage, ...] = ()
    gap: TelemetryGap | None = None
    size: int = 0


@dataclass(frozen=True)
class Totals:
    """The buffer in numbers; bytes include what a row costs. ``kept`` includes what the hub has already."""

    epoch: str
    queued_messages: int
    queued_bytes: int
    kept_bytes: int
    dropped: int


def create(db: sqlite3.Connection) -> None:
    """Make the tables of a new buffer with a new epoch."""
    for statement in SCHEMA.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO totals VALUES (1, 0, 0, 0)")
    db.execute("INSERT INTO facts VALUES ('format', ?), ('epoch', ?)", (str(FORMAT), new_epoch_id()))


def new_epoch_id() -> str:
    """A random epoch."""
    return secrets.token_hex(8)


def epoch(db: sqlite3.Connection) -> str:
    """The buffer's epoch. Raises sqlite3.DatabaseError for a file without one."""
    row = db.execute("SELECT value FROM facts WHERE name = 'epoch'").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the buffer has no epoch")
    return str(row[0])


def totals(db: sqlite3.Connection) -> Totals:
    """O(number of streams), however much is queued."""
    kept_bytes, dropped = db.execute("SELECT kept_bytes, dropped FROM totals").fetchone()
    messages, queued = db.execute("SELECT sum(last - max(acked, base)), sum(queued_bytes) FROM streams").fetchone()
    return Totals(epoch(db), messages or 0, queued or 0, kept_bytes, dropped)


def streams(db: sqlite3.Connection) -> dict[str, Mark]:
    """Every stream with its newest mark."""
    return {name: Mark(last, chain) for name, last, chain in db.execute("SELECT stream, last, last_chain FROM streams")}


def append(
    db: sqlite3.Connection, stream: str, module: str, time_ms: int, body: str, key: str | None, *, ids_max: int = REMEMBERED_IDS
) -> Receipt:
    """Store one message; its sequence and its chain value are decided here, inside the transaction.

    ``key`` is recognised when it comes again; the newest ``ids_max`` keys are remembered.
    """
    if key is not None:
        known = db.execute("SELECT stream, sequence FROM ids WHERE module = ? AND key = ?", (module, key)).fetchone()
        if known is not None:
            return Receipt(known[0], known[1], repeated=True)
    row = db.execute("SELECT last, last_chain FROM streams WHERE stream = ?", (stream,)).fetchone()
    if row is None:
        db.execute("INSERT INTO streams VALUES (?, 0, ?, 0, ?, 0, 0, 0)", (stream, CHAIN_START, CHAIN_START))
        row = (0, CHAIN_START)
    message = TelemetryMessage(sequence=row[0] + 1, time_ms=time_ms, module=module, body=body)
    chain, size = extend_chain(row[1], message), size_of(body)
    db.execute(
        "INSERT INTO messages (stream, sequence, time_ms, module, body, chain, size) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (stream, message.sequence, time_ms, module, body, chain, size),
    )
    db.execute(
        "UPDATE streams SET last = ?, last_chain = ?, queued_bytes = queued_bytes + ? WHERE stream = ?",
        (message.sequence, chain, size, stream),
    )
    db.execute("UPDATE totals SET kept_bytes = kept_bytes + ?", (size,))
    if key is not None:
        _remember(db, module, key, stream, message.sequence, ids_max)
    return Receipt(stream, message.sequence, repeated=False)


def size_of(body: str) -> int:
    """What a message takes of the disk, in bytes: rows share a page only whole, and a long one continues on pages of its own.

    This is what counts against the quota; counting bodies alone would fill a disk twice over.
    """
    payload = len(body.encode()) + ROW_BYTES
    own_pages = 0
    if payload > PAGE_BYTES - 35:
        # The formula of SQLite's file format for what stays on the shared page (section "Cell Payload Overflow Pages").
        least = (PAGE_BYTES - 12) * 32 // 255 - 23
        local = least + (payload - least) % (PAGE_BYTES - 4)
        local = local if local <= PAGE_BYTES - 35 else least
        own_pages = -((local - payload) // (PAGE_BYTES - 4))
        payload = local
    rows_on_a_page = max(1, (PAGE_BYTES - 8) // (payload + 10))
    return own_pages * PAGE_BYTES + PAGE_BYTES // rows_on_a_page + INDEX_BYTES


def _remember(db: sqlite3.Connection, module: str, key: str, stream: str, sequence: int, ids_max: int) -> None:
    db.execute("INSERT INTO ids (module, key, stream, sequence) VALUES (?, ?, ?, ?)", (module, key, stream, sequence))
    db.execute("UPDATE totals SET ids = ids + 1")
    if db.execute("SELECT ids FROM totals").fetchone()[0] > ids_max:
        db.execute("DELETE FROM ids WHERE id = (SELECT id FROM ids ORDER BY id LIMIT 1)")
        db.execute("UPDATE totals SET ids = ids - 1")


def knows(db: sqlite3.Connection, stream: str, mark: Mark) -> bool:
    """False when ``mark`` cannot be a place in this stream: another writer used the same keys."""
    row = db.execute("SELECT last, base FROM streams WHERE stream = ?", (stream,)).fetchone()
    last, base = row or (0, 0)
    if mark.sequence > last:
        return False
    if mark.sequence < base:
        return True  # no longer here, so nothing speaks against it
    return _chain_at(db, stream, mark.sequence) == mark.chain


def _chain_at(db: sqlite3.Connection, stream: str, sequence: int) -> str:
    row = db.execute("SELECT chain FROM messages WHERE stream = ? AND sequence = ?", (stream, sequence)).fetchone()
    if row is None:
        row = db.execute("SELECT base_chain FROM streams WHERE stream = ?", (stream,)).fetchone()
    return str(row[0]) if row else CHAIN_START


def settle(db: sqlite3.Connection, stream: str, mark: Mark) -> bool:
    """Take over what the hub has: forward after an acknowledgement, back after a restore. False when it cannot be true."""
    if not knows(db, stream, mark):
        return False
    row = db.execute("SELECT base, acked, acked_bytes, queued_bytes FROM streams WHERE stream = ?", (stream,)).fetchone()
    if row is None:
        return True
    base, acked, acked_bytes, queued_bytes = row
    low, high = sorted((max(acked, base), max(mark.sequence, base)))
    moved = db.execute(
        "SELECT coalesce(sum(size), 0) FROM messages WHERE stream = ? AND sequence > ? AND sequence <= ?", (stream, low, high)
    ).fetchone()[0]
    moved = moved if mark.sequence >= acked else -moved
    db.execute(
        "UPDATE streams SET acked = ?, acked_bytes = ?, queued_bytes = ? WHERE stream = ?",
        (mark.sequence, acked_bytes + moved, queued_bytes - moved, stream),
    )
    return True


def read_after(db: sqlite3.Connection, stream: str, mark: Mark, *, max_messages: int, max_bytes: int) -> Portion | None:
    """What follows ``mark``: a gap, or up to ``max_bytes`` of messages (at least one); None at the end."""
    row = db.execute("SELECT last, base, base_chain FROM streams WHERE stream = ?", (stream,)).fetchone()
    if row is None or mark.sequence >= row[0]:
        return None
    if mark.sequence < row[1]:
        return _gap_after(db, stream, mark, Mark(row[1], row[2]))
    rows = db.execute(
        "SELECT sequence, time_ms, module, body, chain, size FROM messages WHERE stream = ? AND sequence > ?"
        " ORDER BY sequence LIMIT ?",
        (stream, mark.sequence, max_messages),
    )
    messages: list[TelemetryMessage] = []
    end, size = mark, 0
    for sequence, time_ms, module, body, chain, row_size in rows:
        if messages and size + row_size > max_bytes:
            break
        messages.append(TelemetryMessage(sequence=sequence, time_ms=time_ms, module=module, body=body))
        end, size = Mark(sequence, chain), size + row_size
    return Portion(stream, mark, end, tuple(messages), size=size)


def _gap_after(db: sqlite3.Connection, stream: str, mark: Mark, base: Mark) -> Portion:
    """The first part of what is missing between ``mark`` and ``base``.

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
    elif row is not None:
        end = Mark(row[0] - 1, row[3])
    gap = TelemetryGap(first_sequence=mark.sequence + 1, last_sequence=end.sequence, reason=reason)
    return Portion(stream, mark, end, gap=gap)


def evict(db: sqlite3.Connection, needed_bytes: int, *, acked_only: bool) -> int:
    """Free at least ``needed_bytes``: what the hub has first, then (unless ``acked_only``) the oldest, as a gap "quota".

    Returns the bytes freed, which may be fewer.
    """
    freed = 0
    while freed < needed_bytes:
        victim = _oldest(db, acked=True) or (None if acked_only else _oldest(db, acked=False))
        if victim is None:
            return freed
        freed += _evict_from(db, *victim, needed_bytes - freed)
    return freed


def _oldest(db: sqlite3.Connection, *, acked: bool) -> tuple[str, int] | None:
    """The stream with the oldest message that may go, and how far."""
    limit = "acked" if acked else "last"
    rows = db.execute(f"SELECT stream, {limit}, base FROM streams WHERE {limit} > base").fetchall()  # noqa: S608 - one of two literals
    oldest: list[tuple[int, str, int]] = []
    for stream, until, base in rows:
        first = db.execute(
            "SELECT id FROM messages WHERE stream = ? AND sequence > ? ORDER BY sequence LIMIT 1", (stream, base)
        ).fetchone()
        if first is not None:
            oldest.append((first[0], stream, until))
    return min(oldest)[1:] if oldest else None


def _evict_from(db: sqlite3.Connection, stream: str, until: int, needed_bytes: int) -> int:
    rows = db.execute(
        "SELECT sequence, size, chain FROM messages WHERE stream = ? AND sequence <= ? ORDER BY sequence LIMIT ?",
        (stream, until, EVICT_ROWS),
    ).fetchall()
    base, base_chain, acked = db.execute("SELECT base, base_chain, acked FROM streams WHERE stream = ?", (stream,)).fetchone()
    before, freed, freed_acked = Mark(base, base_chain), 0, 0
    end = before
    for sequence, size, chain in rows:
        if freed >= needed_bytes:
            break
        freed += size
        freed_acked += size if sequence <= acked else 0
        end = Mark(sequence, chain)
    db.execute("DELETE FROM messages WHERE stream = ? AND sequence <= ?", (stream, end.sequence))
    db.execute(
        "UPDATE streams SET base = ?, base_chain = ?, acked_bytes = acked_bytes - ?, queued_bytes = queued_bytes - ?"
        " WHERE stream = ?",
        (end.sequence, end.chain, freed_acked, freed - freed_acked, stream),
    )
    db.execute("UPDATE totals SET kept_bytes = kept_bytes - ?", (freed,))
    if end.sequence > acked:
        _record_loss(db, stream, before, end, "quota")
        db.execute("UPDATE totals SET dropped = dropped + ?", (end.sequence - before.sequence,))
    return freed


def _record_loss(db: sqlite3.Connection, stream: str, before: Mark, end: Mark, reason: GapReason) -> None:
    """Note an interval; one that continues the last is joined to it."""
    joined = db.execute(
        "UPDATE lost SET last = ?, chain = ? WHERE stream = ? AND last = ? AND reason = ?",
        (end.sequence, end.chain, stream, before.sequence, reason),
    )
    if joined.rowcount == 0:
        db.execute(
            "INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?)",
            (stream, before.sequence + 1, end.sequence, reason, before.chain, end.chain),
        )
    # Bounded; an interval so old that it is forgotten would be told to a restored hub as "hub-restored".
    db.execute(
        "DELETE FROM lost WHERE stream = ?"
        " AND first < (SELECT first FROM lost WHERE stream = ? ORDER BY first DESC LIMIT 1 OFFSET ?)",
        (stream, stream, LOST_ROWS_KEPT),
    )


def begin_epoch(db: sqlite3.Connection) -> str:
    """A new epoch: what the hub has not acknowledged is numbered anew from 1; unreported losses lead as one gap each."""
    for (stream,) in db.execute("SELECT stream FROM streams").fetchall():
        _renumber(db, stream)
    fresh = new_epoch_id()
    db.execute("UPDATE facts SET value = ? WHERE name = 'epoch'", (fresh,))
    return fresh


def _renumber(db: sqlite3.Connection, stream: str) -> None:
    acked, acked_bytes = db.execute("SELECT acked, acked_bytes FROM streams WHERE stream = ?", (stream,)).fetchone()
    db.execute("DELETE FROM messages WHERE stream = ? AND sequence <= ?", (stream, acked))
    unreported = db.execute(
        "SELECT coalesce(sum(last - max(first - 1, ?)), 0) FROM lost WHERE stream = ? AND last > ?", (acked, stream, acked)
    ).fetchone()[0]
    db.execute("DELETE FROM lost WHERE stream = ?", (stream,))
    if unreported:
        _record_loss(db, stream, START, Mark(unreported, CHAIN_START), "quota")
    end = Mark(unreported, CHAIN_START)
    for message_id, message in _unsent(db, stream):
        # New numbers are never larger than the old ones and are given in order, so none is taken.
        fresh = TelemetryMessage(sequence=end.sequence + 1, time_ms=message.time_ms, module=message.module, body=message.body)
        end = Mark(fresh.sequence, extend_chain(end.chain, fresh))
        db.execute("UPDATE messages SET sequence = ?, chain = ? WHERE id = ?", (end.sequence, end.chain, message_id))
    db.execute(
        "UPDATE streams SET last = ?, last_chain = ?, base = ?, base_chain = ?, acked = 0, acked_bytes = 0 WHERE stream = ?",
        (end.sequence, end.chain, unreported, CHAIN_START, stream),
    )
    db.execute("UPDATE totals SET kept_bytes = kept_bytes - ?", (acked_bytes,))


def _unsent(db: sqlite3.Connection, stream: str) -> Iterator[tuple[int, TelemetryMessage]]:
    done = 0
    while True:
        rows = db.execute(
            "SELECT id, sequence, time_ms, module, body FROM messages WHERE stream = ? AND sequence > ?"
            " ORDER BY sequence LIMIT 500",
            (stream, done),
        ).fetchall()
        for message_id, sequence, time_ms, module, body in rows:
            done = sequence
            yield message_id, TelemetryMessage(sequence=sequence, time_ms=time_ms, module=module, body=body)
        if not rows:
            return
