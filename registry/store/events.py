"""Events: every change, written in the transaction that makes it, and read in an order in which nothing is missed.

**Why numbers are not enough.** A follower keeps the place up to which it has read and asks for what comes after it. On
PostgreSQL an event's number is drawn when it is written, but the event is seen when its transaction commits, and
transactions commit in any order: number 7 may be seen while number 6 is still being made. Whoever asks for "after 7" then
never sees 6.

**What is done instead.** Each event holds the id of the transaction that wrote it (drawn in order, like the number), the
order is (transaction, number), and a reader gets only events of transactions below ``xmin`` of its snapshot: the oldest
transaction that was still under way when it looked. All below it have ended, so what is there of them is complete, and
whatever is written later belongs to a transaction at or above it: nothing can appear before a place that was given out.
The price: a transaction that stays open anywhere in the PostgreSQL server holds newer events back until it ends; they
come late, in order, and none is lost. SQLite has one writer at a time, so there every transaction is 0 and the number is
the order.

A place (:class:`Cursor`) is ``INCARNATION.TRANSACTION.NUMBER`` and opaque to clients. The incarnation (its first eight
digits) changes when a backup is restored: events that a follower has seen may not exist any more, their numbers are given
to others, and it must begin anew. A restored database may lie in another PostgreSQL server, whose transaction ids begin
elsewhere: :func:`begin_new_life` makes the restored events come before all new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, cast, func, literal, or_, select, true, tuple_, update
from sqlalchemy.types import BigInteger, Text

from hedgerow.contracts.events import Actor, Event
from registry.errors import CursorOfAnotherLife, InvalidPage
from registry.store import facts
from registry.store.prepared import Prepared
from registry.store.tables import events, tokens, webhooks
from registry.store.time_text import from_text, to_text

if TYPE_CHECKING:
    from sqlalchemy.sql.dml import ReturningInsert

_SHORT = 8
_LARGEST = 2**63 - 1
_STAR = "*"
# Every word that stands first in an actor's text.
_ROLES = ("owner", "contributor", "reader", "puller", "device", "run", "system")


class Place(NamedTuple):
    """Where an event stands in the order."""

    transaction: int
    number: int


@dataclass(frozen=True)
class Cursor:
    """A place in one life of the database: everything up to it was read."""

    incarnation: str
    place: Place

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises InvalidPage for what no answer of ours holds."""
        parts = text.split(".")
        numbers = [int(part) for part in parts[1:] if part.isascii() and part.isdigit() and len(part) < 20]
        if len(parts) != 3 or len(numbers) != 2 or max(numbers) > _LARGEST or len(parts[0]) != _SHORT:
            raise InvalidPage(value=text[:80])
        return cls(parts[0], Place(*numbers))

    def text(self) -> str:
        return f"{self.incarnation}.{self.place.transaction}.{self.place.number}"


@dataclass(frozen=True)
class Wanted:
    """Which events: ``kind`` and ``subject`` exact or with a star at the end, ``actor`` a token's id or name.

    ``since`` is included, ``until`` is not.
    """

    kind: str | None = None
    subject: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Batch:
    """``reached`` is up to where was looked, beyond the last event when those after it were not wanted."""

    events: list[Event]
    reached: Cursor


def system(process: str) -> Actor:
    """A process of the control plane ("hub", "controller") that acts on its own."""
    return Actor(id="system", name=process, role="system")


def record(
    connection: Connection, *, kind: str, subject: str, actor: Actor, now: datetime, details: Mapping[str, str] | None = None
) -> int:
    """Write one event; visible with the commit of the change that it tells of. Returns its number."""
    row = {
        "at": to_text(now),
        "kind": kind,
        "subject": subject,
        "actor": actor.text(),
        "details": msgspec.json.encode(dict(details or {}), order="sorted").decode(),
    }
    return int(_ADDED.first(connection, row).number)


def _added(dialect: str) -> ReturningInsert[int]:
    transaction = literal(0) if dialect == "sqlite" else cast(cast(func.pg_current_xact_id(), Text), BigInteger)
    return events.insert().values(transaction_id=transaction).returning(events.c.number)


_ADDED = Prepared(_added, columns=("at", "kind", "subject", "actor", "details"))


# --- reading -----------------------------------------------------------------------------------------------------------


def life(connection: Connection) -> str:
    """The part of the incarnation that cursors hold."""
    return facts.incarnation(connection)[:_SHORT]


def beginning(connection: Connection) -> Cursor:
    """Before the oldest event."""
    return Cursor(life(connection), Place(0, 0))


def end(connection: Connection) -> Cursor:
    """After every event that can be read now."""
    return Cursor(life(connection), present(connection))


def present(connection: Connection) -> Place:
    """The place of :func:`end`."""
    if connection.dialect.name == "sqlite":
        return Place(0, connection.execute(select(func.max(events.c.number))).scalar() or 0)
    return Place(int(connection.execute(select(_oldest_open())).scalar_one()), 0)


def check_life(connection: Connection, cursor: Cursor) -> None:
    """Raises CursorOfAnotherLife when the workspace was restored since ``cursor`` was given out."""
    now = life(connection)
    if cursor.incarnation != now:
        raise CursorOfAnotherLife(cursor=cursor.text(), found=cursor.incarnation, expected=now)


def after(connection: Connection, cursor: Cursor, wanted: Wanted, limit: int) -> Batch:
    """Oldest first, those after ``cursor`` (of this life). ``connection`` is a read: one snapshot."""
    query = _filtered(connection, wanted).where(_place() > tuple_(*cursor.place))
    rows = connection.execute(query.order_by(events.c.transaction_id, events.c.number).limit(limit)).all()
    found = [_event(row, cursor.incarnation) for row in rows]
    reached = _place_of(rows[-1]) if len(rows) == limit else max(cursor.place, present(connection))
    return Batch(found, Cursor(cursor.incarnation, reached))


def newest(connection: Connection, before: Cursor | None, wanted: Wanted, limit: int) -> list[Event]:
    """Newest first, those before ``before`` (of this life)."""
    query = _filtered(connection, wanted)
    if before is not None:
        query = query.where(_place() < tuple_(*before.place))
    rows = connection.execute(query.order_by(events.c.transaction_id.desc(), events.c.number.desc()).limit(limit))
    incarnation = life(connection)
    return [_event(row, incarnation) for row in rows]


def one(connection: Connection, number: int) -> Event | None:
    """The event of this number, whether it can be read in order yet or not."""
    row = connection.execute(select(events).where(events.c.number == number)).one_or_none()
    return None if row is None else _event(row, life(connection))


def places_after(connection: Connection, place: Place, limit: int) -> Sequence[Row[Any]]:
    """``number, transaction_id, kind, subject`` of the events after ``place``, oldest first; for whoever passes them on."""
    query: Select[Any] = (
        select(events.c.number, events.c.transaction_id, events.c.kind, events.c.subject)
        .where(_place() > tuple_(*place), _complete(connection))
        .order_by(events.c.transaction_id, events.c.number)
        .limit(limit)
    )
    return connection.execute(query).all()


def begin_new_life(connection: Connection) -> None:
    """To be called where a backup is restored, in the transaction that changes the incarnation.

    Every event that is there is complete, and comes before all that will be written, whatever server they were written in.
    Webhooks go on where the oldest event lies that they were not given; what was given out once is not given out again.
    """
    for hook in connection.execute(select(webhooks)).all():
        seen = tuple_(hook.after_transaction, hook.after_number)
        missed = connection.execute(select(func.min(events.c.number)).where(_place() > seen)).scalar()
        last = connection.execute(select(func.max(events.c.number))).scalar() or 0
        number = last if missed is None else missed - 1
        connection.execute(update(webhooks).where(webhooks.c.name == hook.name).values(after_transaction=0, after_number=number))
    connection.execute(update(events).values(transaction_id=0))


# --- below -------------------------------------------------------------------------------------------------------------


def _filtered(connection: Connection, wanted: Wanted) -> Select[Any]:
    query = select(events).where(_complete(connection))
    if wanted.kind is not None:
        query = query.where(_matches(connection, events.c.kind, wanted.kind))
    if wanted.subject is not None:
        query = query.where(_matches(connection, events.c.subject, wanted.subject))
    if wanted.actor is not None:
        query = query.where(_by_actor(connection, wanted.actor))
    if wanted.since is not None:
        query = query.where(events.c.at >= to_text(wanted.since))
    if wanted.until is not None:
        query = query.where(events.c.at < to_text(wanted.until))
    return query


def _matches(connection: Connection, column: ColumnElement[Any], wanted: str) -> ColumnElement[bool]:
    if not wanted.endswith(_STAR):
        return column == wanted
    return _begins(connection, column, wanted.removesuffix(_STAR))


def _begins(connection: Connection, column: ColumnElement[Any], start: str) -> ColumnElement[bool]:
    if connection.dialect.name != "sqlite":
        return column.startswith(start, autoescape=True)
    # SQLite's LIKE takes a for A and no index; its text sorts by code points.
    return (column >= start) & (column < f"{start}\U0010ffff")


def _by_actor(connection: Connection, wanted: str) -> ColumnElement[bool]:
    """By a token's id, or by a name, whatever the role. The texts are ``ROLE:NAME:ID``."""
    named = [_begins(connection, events.c.actor, f"{role}:{wanted}:") for role in _ROLES]
    rows = connection.execute(select(tokens.c.role, tokens.c.name).where(tokens.c.id == wanted))
    owned = [events.c.actor == Actor(id=wanted, name=row.name, role=row.role).text() for row in rows]
    # Tokens that are forgotten (page sessions) and "system" have no row to tell their name.
    return or_(*named, *owned) if owned else or_(*named, events.c.actor.endswith(f":{wanted}", autoescape=True))


def _complete(connection: Connection) -> ColumnElement[bool]:
    if connection.dialect.name == "sqlite":
        return true()
    return events.c.transaction_id < _oldest_open()


def _oldest_open() -> ColumnElement[int]:
    return cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger)


def _place() -> ColumnElement[Any]:
    return tuple_(events.c.transaction_id, events.c.number)


def _place_of(row: Row[Any]) -> Place:
    return Place(row.transaction_id, row.number)


def _event(row: Row[Any], incarnation: str) -> Event:
    return Event(
        cursor=Cursor(incarnation, _place_of(row)).text(),
        number=row.number,
        at=from_text(row.at),
        kind=row.kind,
        subject=row.subject,
        actor=Actor.parse(row.actor),
        details=msgspec.json.decode(row.details, type=dict[str, str]),
    )
