"""New messages into the buffer's rows: all those of one transaction are numbered and chained in memory and written together.

A stream's row is read once and written once per transaction, messages go in many rows to a statement: the interpreter's lock is
given up for every statement, and under load it takes long to get it back. Nothing of it is seen in the tables before ``flush``;
who looks at them or changes them in between flushes first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from edge_agent.telemetry.entries import Entry, Receipt
from edge_agent.telemetry.rules import REMEMBERED_IDS
from edge_agent.telemetry.schema import size_of
from hedgerow.contracts.telemetry import CHAIN_START

_MESSAGES = "INSERT INTO messages (id, stream, sequence, time_ms, module, body, chain, size, expires, properties) VALUES "
_IDS = "INSERT INTO ids (module, key, stream, sequence) VALUES "
# Rows to a statement; few sizes, so that the statements stay prepared.
_CHUNKS = (128, 64, 32, 16, 8, 4, 2, 1)
_STREAM = (
    "INSERT INTO streams (stream, last, last_chain, base, base_chain, acked, acked_bytes, queued_bytes, local)"
    " VALUES (?, 0, ?, 0, ?, 0, 0, 0, ?)"
)


@dataclass(slots=True)
class OpenStream:
    """A stream's end while messages are added to it. ``kept_bytes`` is everything of it that is still here."""

    last: int
    chain: bytes
    kept_bytes: int
    local: bool
    priority: int | None
    added_bytes: int = 0
    added: int = 0


class Appender:
    """The messages of one transaction of ``db``."""

    def __init__(self, db: sqlite3.Connection, ids_max: int = REMEMBERED_IDS) -> None:
        self._db = db
        self._ids_max = ids_max
        self._streams: dict[str, OpenStream] = {}
        self._rows: list[tuple[int, str, int, int, str, str, str, int, int | None, str | None]] = []
        self._keys: dict[tuple[str, str], tuple[str, int]] = {}
        self._looked_up: dict[tuple[str, str], tuple[str, int] | None] = {}
        self._expiries: list[tuple[int, int]] = []
        self._kept: int | None = None
        self._next_id = 0

    @property
    def kept_bytes(self) -> int:
        """Everything in the buffer, with what was added."""
        if self._kept is None:
            (self._kept,) = self._db.execute("SELECT kept_bytes FROM totals").fetchone()
            (newest,) = self._db.execute("SELECT max(id) FROM messages").fetchone()
            self._next_id = (newest or 0) + 1
        return self._kept

    def look_up(self, entries: Iterable[Entry]) -> None:
        """Ask at once which idempotency ids of ``entries`` are known, for ``known``."""
        asked = dict.fromkeys((entry.module, entry.key) for entry in entries if entry.key is not None)
        self._looked_up = dict.fromkeys(asked)
        rows = list(asked)
        for begin, end in _chunks(len(rows)):
            values = ", ".join(["(?, ?)"] * (end - begin))
            query = (
                f"WITH asked (module, key) AS (VALUES {values}) SELECT ids.module, ids.key, stream, sequence"  # noqa: S608 - marks only
                " FROM asked CROSS JOIN ids ON ids.module = asked.module AND ids.key = asked.key"
            )
            for module, key, stream, sequence in self._db.execute(query, [part for row in rows[begin:end] for part in row]):
                self._looked_up[module, key] = (stream, sequence)

    def known(self, module: str, key: str) -> Receipt | None:
        """Where the message with this idempotency id was stored."""
        found = self._keys.get((module, key)) or self._looked_up.get((module, key))
        if found is None and (module, key) not in self._looked_up:
            found = self._db.execute("SELECT stream, sequence FROM ids WHERE module = ? AND key = ?", (module, key)).fetchone()
        return None if found is None else Receipt(found[0], found[1], repeated=True)

    def stream(self, entry: Entry) -> OpenStream:
        """The stream of ``entry``, made when there is none."""
        found = self._streams.get(entry.stream)
        if found is not None:
            return found
        row = self._db.execute(
            "SELECT last, last_chain, acked_bytes + queued_bytes, local, priority FROM streams WHERE stream = ?", (entry.stream,)
        ).fetchone()
        if row is None:
            self._db.execute(_STREAM, (entry.stream, CHAIN_START, CHAIN_START, int(entry.local)))
            row = (0, CHAIN_START, 0, int(entry.local), None)
        found = OpenStream(row[0], bytes.fromhex(row[1]), row[2], bool(row[3]), row[4])
        self._streams[entry.stream] = found
        return found

    def add(self, entry: Entry, body: bytes, size: int, expires: int | None) -> Receipt:
        """Number and chain one message; ``body`` are its bytes, ``size`` what they take (``schema.size_of``)."""
        kept, stream = self.kept_bytes, self.stream(entry)
        sequence = stream.last + 1
        # extend_chain of the contract, without making a TelemetryMessage for it.
        head = f"{sequence}|{entry.time_ms}|{entry.module}|".encode()
        stream.last, stream.chain = sequence, sha256(stream.chain + head + body).digest()
        stream.added_bytes += size
        stream.kept_bytes += size
        stream.added += 1
        if entry.priority is not None:
            stream.priority = entry.priority
        self._kept = kept + size
        number = self._next_id
        self._next_id += 1
        chain = stream.chain.hex()
        self._rows.append(
            (
                number,
                entry.stream,
                sequence,
                entry.time_ms,
                entry.module,
                entry.body,
                chain,
                size,
                expires,
                entry.properties,
            )
        )
        if expires is not None:
            self._expiries.append((expires, number))
        if entry.key is not None:
            self._keys.setdefault((entry.module, entry.key), (entry.stream, sequence))
        return Receipt(entry.stream, sequence, repeated=False)

    def flush(self) -> None:
        """Write what was added, and forget everything that was read."""
        db = self._db
        if self._rows:
            insert(db, _MESSAGES, self._rows)
            db.executemany("INSERT INTO expiries VALUES (?, ?)", self._expiries)
            db.executemany(
                "UPDATE streams SET last = ?, last_chain = ?, queued_bytes = queued_bytes + ?,"
                " queued_messages = queued_messages + ?, priority = ? WHERE stream = ?",
                [
                    (s.last, s.chain.hex(), s.added_bytes, s.added, s.priority, name)
                    for name, s in self._streams.items()
                    if s.added
                ],
            )
            db.execute("UPDATE totals SET kept_bytes = ?", (self._kept,))
            self._remember()
            # They are in the table now; what was looked up before does not know them.
            self._looked_up.update(self._keys)
        self._streams, self._rows, self._keys, self._expiries, self._kept = {}, [], {}, [], None

    def _remember(self) -> None:
        if not self._keys:
            return
        insert(self._db, _IDS, [(*names, *place) for names, place in self._keys.items()])
        (count,) = self._db.execute("SELECT ids FROM totals").fetchone()
        over = count + len(self._keys) - self._ids_max
        if over > 0:
            self._db.execute("DELETE FROM ids WHERE id IN (SELECT id FROM ids ORDER BY id LIMIT ?)", (over,))
        self._db.execute("UPDATE totals SET ids = ?", (min(count + len(self._keys), self._ids_max),))


def insert(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Run ``statement`` (which ends with VALUES) for all of ``rows``."""
    for begin, end in _chunks(len(rows)):
        marks = f"({', '.join('?' * len(rows[begin]))})"
        db.execute(statement + ", ".join([marks] * (end - begin)), [value for row in rows[begin:end] for value in row])


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    begin = 0
    for size in _CHUNKS:
        while count - begin >= size:
            yield begin, begin + size
            begin += size


def append(db: sqlite3.Connection, entries: Sequence[Entry], *, ids_max: int = REMEMBERED_IDS) -> list[Receipt]:
    """Store ``entries`` without asking whether there is room."""
    appender = Appender(db, ids_max)
    receipts = []
    for entry in entries:
        known = appender.known(entry.module, entry.key) if entry.key is not None else None
        body = entry.body.encode()
        size = size_of(len(body) + entry.properties_bytes)
        receipts.append(known or appender.add(entry, body, size, None))
    appender.flush()
    return receipts
