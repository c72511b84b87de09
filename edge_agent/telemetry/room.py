"""Whether there is room for new messages, and what has to go for them, by the rules of the streams.

Above all stands the device's quota. What the hub has goes first; then the least urgent streams, the oldest messages first; never
anything more urgent than what comes. A stream that does not want to lose what was stored (``drop-newest``) gives way only to
something more urgent; when nothing may go, the new message is refused.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.errors import BufferFull
from edge_agent.telemetry import dropping
from edge_agent.telemetry.appending import Appender
from edge_agent.telemetry.entries import Entry, Receipt
from edge_agent.telemetry.rules import LEAST_URGENT, Rules
from edge_agent.telemetry.schema import size_of

# A little more than needed is freed each time, so that not every message of a full buffer has to make its own room.
_MORE_PART = 256
_MORE_MAX_BYTES = 1_000_000
_STEP_BYTES = 65_536


@dataclass(frozen=True)
class _Weighed:
    entry: Entry
    body: bytes
    size: int


def store(db: sqlite3.Connection, appender: Appender, rules: Rules, entries: Sequence[Entry], age_s: float) -> list[Receipt]:
    """Add ``entries``, all or none, making room where it is needed. Raises BufferFull."""
    known = {(entry.module, entry.key): _known(appender, entry) for entry in entries}
    fresh = [_weighed(entry) for entry in entries if known[entry.module, entry.key] is None]
    if fresh:
        _admit(db, appender, rules, fresh)
    waiting = iter(fresh)
    return [known[entry.module, entry.key] or _add(appender, rules, next(waiting), age_s) for entry in entries]


def _known(appender: Appender, entry: Entry) -> Receipt | None:
    return None if entry.key is None else appender.known(entry.module, entry.key)


def _add(appender: Appender, rules: Rules, new: _Weighed, age_s: float) -> Receipt:
    life_s = rules.time_to_live_s(new.entry.stream, new.entry.time_to_live_s)
    # A whole second more, so that nothing expires before its time.
    return appender.add(new.entry, new.body, new.size, None if life_s is None else int(age_s + life_s) + 1)


def shrink(db: sqlite3.Connection, rules: Rules) -> None:
    """One step towards quotas that have become smaller, as far as the policies let anything go."""
    for stream, held in db.execute("SELECT stream, acked_bytes + queued_bytes FROM streams").fetchall():
        own = rules.quota_bytes(stream)
        if own is not None and held > own:
            with contextlib.suppress(BufferFull):
                _shrink_stream(db, rules, stream, own, _bounded(held - own, 0, own))
    over = db.execute("SELECT kept_bytes FROM totals").fetchone()[0] - rules.limits.quota_bytes
    if over > 0:
        with contextlib.suppress(BufferFull):
            _shrink_all(db, rules, 0, _bounded(over, 0, rules.limits.quota_bytes), rules.limits.quota_bytes)


def _weighed(entry: Entry) -> _Weighed:
    body = entry.body.encode()
    return _Weighed(entry, body, size_of(len(body) + entry.properties_bytes))


def _admit(db: sqlite3.Connection, appender: Appender, rules: Rules, fresh: Sequence[_Weighed]) -> None:
    """Return when all of ``fresh`` may be added. Raises BufferFull with nothing changed."""
    per_stream: dict[str, int] = {}
    urgency = LEAST_URGENT
    for new in fresh:
        name, stream = new.entry.stream, appender.stream(new.entry)
        per_stream[name] = per_stream.get(name, 0) + new.size
        stored = new.entry.priority if new.entry.priority is not None else stream.priority
        urgency = min(urgency, rules.urgency(name, stored))
    quota = rules.limits.quota_for(urgency)
    total = sum(per_stream.values())
    crowded = {
        name: (own, appender.stream(new.entry).kept_bytes + per_stream[name] - own)
        for new in fresh
        if (own := rules.quota_bytes(name := new.entry.stream)) is not None
        and appender.stream(new.entry).kept_bytes + per_stream[name] > own
    }
    over = appender.kept_bytes + total - quota
    if over <= 0 and not crowded:
        return
    appender.flush()
    db.execute("SAVEPOINT room")
    try:
        for name, (own, stream_over) in crowded.items():
            over -= _shrink_stream(db, rules, name, own, _bounded(stream_over, per_stream[name], own))
        if over > 0:
            _shrink_all(db, rules, urgency, _bounded(over, total, quota), quota)
    except BufferFull:
        db.execute("ROLLBACK TO room")
        db.execute("RELEASE room")
        raise
    db.execute("RELEASE room")


def _bounded(over: int, coming: int, quota: int) -> tuple[int, int]:
    """(bytes that have to go now, bytes that should). After a quota has become smaller not everything goes in one transaction."""
    more = min(quota // _MORE_PART, _MORE_MAX_BYTES)
    needed = min(over, 2 * coming + _MORE_MAX_BYTES)
    return needed, needed + more


def _shrink_stream(db: sqlite3.Connection, rules: Rules, stream: str, quota: int, room: tuple[int, int]) -> int:
    needed, wanted = room
    freed = dropping.evict_acked(db, wanted, stream=stream)
    match rules.overflow(stream):
        case "downsample":
            freed += dropping.thin(db, stream, wanted - freed)
            freed += dropping.evict_oldest(db, wanted - freed, [stream])
        case "drop-oldest":
            freed += dropping.evict_oldest(db, wanted - freed, [stream])
        case "drop-newest":
            pass
    if freed < needed:
        raise BufferFull(quota=quota)
    return freed


def _shrink_all(db: sqlite3.Connection, rules: Rules, urgency: int, room: tuple[int, int], quota: int) -> None:
    needed, wanted = room
    freed = dropping.evict_acked(db, wanted)
    for victims in _victims(db, rules, urgency):
        while freed < wanted and (victim := dropping.oldest(db, victims)) is not None:
            thinned = dropping.thin(db, victim, wanted - freed) if rules.overflow(victim) == "downsample" else 0
            freed += thinned if thinned > 0 else dropping.evict_oldest(db, min(wanted - freed, _STEP_BYTES), [victim])
        # Of more urgent streams nothing goes that need not.
        wanted = needed
    if freed < needed:
        raise BufferFull(quota=quota)


def _victims(db: sqlite3.Connection, rules: Rules, urgency: int) -> list[list[str]]:
    """Streams that may give way to something of ``urgency``: the least urgent first, equals together."""
    groups: dict[int, list[str]] = {}
    for stream, stored in db.execute("SELECT stream, priority FROM streams WHERE last > base").fetchall():
        own = rules.urgency(stream, stored)
        if own > urgency or (own == urgency and rules.overflow(stream) != "drop-newest"):
            groups.setdefault(own, []).append(stream)
    return [groups[own] for own in sorted(groups, reverse=True)]
