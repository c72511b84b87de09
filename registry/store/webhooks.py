"""Webhooks and what they have to be sent: each event that a webhook wants becomes a delivery, in the order of the events.

Life-cycle of a delivery::

    fan_out ──▶ waiting ──claim──▶ (being sent; due again when the claim runs out) ──settle──▶ delivered
                   ▲                                                                  │  ├────▶ waiting, later
                   └─────────────────────────── redeliver ────────────────────────────┴──┴────▶ dead

A webhook is sent one event at a time, the oldest first. ``next_at`` of a delivery that is being sent is the end of its claim:
nobody else takes it before, and whoever comes after a sender that died sends it again (at least once, under the same id).
A ping is outside of that order and is tried once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, delete, func, select, update

from hedgerow.contracts.events import ChangeWebhook, CreateWebhook, Delivery, Event, Webhook
from registry.errors import NameTaken, RecordNotFound, TooManyWebhooks, WebhookPaused
from registry.store import events as event_store
from registry.store.events import Place
from registry.store.tables import events, webhook_deliveries, webhooks
from registry.store.time_text import from_text, maybe_from_text, to_text
from registry.store.upsert import insert
from registry.vault import Sealed

PING = "webhook.pinged"
MOST = 50
# Events for one webhook in one transaction.
_BATCH = 500
_LONGEST_PROBLEM = 500


@dataclass(frozen=True)
class Due:
    """What one webhook waits for: ``next_at`` of the delivery at its head."""

    name: str
    next_at: datetime


@dataclass(frozen=True)
class Claim:
    """One delivery to be sent now. ``attempt`` counts from 1 and tells claims apart."""

    webhook: str
    url: str
    sealed: Sealed
    event: Event
    delivery_id: str
    attempt: int
    failing_since: datetime | None

    @property
    def is_ping(self) -> bool:
        return self.event.kind == PING


@dataclass(frozen=True)
class Settlement:
    """How a claim ended. ``next_at`` for one that waits on; ``pause``: the receiver wants nothing any more."""

    state: str
    status_code: int | None = None
    problem: str = ""
    next_at: datetime | None = None
    pause: bool = False


def create(connection: Connection, wanted: CreateWebhook, sealed: Sealed, *, by: str, now: datetime) -> Webhook:
    """It is given every event from here on. Raises NameTaken, TooManyWebhooks."""
    if (connection.execute(select(func.count()).select_from(webhooks)).scalar() or 0) >= MOST:
        raise TooManyWebhooks(limit=MOST)
    place = event_store.present(connection)
    row = {
        "name": wanted.name,
        "url": wanted.url,
        "kinds": msgspec.json.encode(wanted.kinds).decode(),
        "state": "active",
        "key_id": sealed.key_id,
        "sealed_secret": sealed.data,
        "after_transaction": place.transaction,
        "after_number": place.number,
        "created_at": to_text(now),
        "created_by": by,
    }
    added = insert(connection, webhooks).values(**row).on_conflict_do_nothing().returning(webhooks.c.name)
    if connection.execute(added).one_or_none() is None:
        raise NameTaken(kind="webhook", name=wanted.name)
    return get(connection, wanted.name)


def get(connection: Connection, name: str, *, lock: bool = False) -> Webhook:
    """``lock`` for whoever decides by what it reads. Raises RecordNotFound."""
    return _webhook(_row(connection, name, lock=lock), _counts(connection, [name]))


def page(connection: Connection, limit: int, after: str | None = None) -> tuple[list[Webhook], str | None]:
    """By name; ``after`` is the last name of the page before."""
    query = select(webhooks).order_by(webhooks.c.name).limit(limit + 1)
    if after is not None:
        query = query.where(webhooks.c.name > after)
    rows = connection.execute(query).all()
    counts = _counts(connection, [row.name for row in rows[:limit]])
    return [_webhook(row, counts) for row in rows[:limit]], rows[limit - 1].name if len(rows) > limit else None


def change(connection: Connection, name: str, wanted: ChangeWebhook, now: datetime) -> Webhook:
    """What is waiting stays, and goes to the new URL; new kinds count for events that come. Raises RecordNotFound."""
    row = _row(connection, name, lock=True)
    values: dict[str, object] = {"revision": row.revision + 1}
    if wanted.url is not None:
        values["url"] = wanted.url
    if wanted.kinds is not None:
        values["kinds"] = msgspec.json.encode(wanted.kinds).decode()
    if wanted.state is not None:
        values["state"] = wanted.state
    if wanted.url is not None or wanted.state == "active":
        # A new chance: whatever failed before was another receiver, or one that nobody asked for a while.
        values["failing_since"] = None
        _let_head_go(connection, name, now)
    connection.execute(update(webhooks).where(webhooks.c.name == name).values(**values))
    return get(connection, name)


def change_secret(connection: Connection, name: str, sealed: Sealed) -> Webhook:
    """Deliveries that are sent from now on are signed with it. Raises RecordNotFound."""
    row = _row(connection, name, lock=True)
    values = {"key_id": sealed.key_id, "sealed_secret": sealed.data, "revision": row.revision + 1}
    connection.execute(update(webhooks).where(webhooks.c.name == name).values(**values))
    return get(connection, name)


def remove(connection: Connection, name: str) -> None:
    """With everything that it still had to be sent. Raises RecordNotFound."""
    if connection.execute(delete(webhooks).where(webhooks.c.name == name)).rowcount == 0:
        raise _not_found(name)


def deliveries(
    connection: Connection, name: str, limit: int, before: int | None = None, *, state: str | None = None
) -> tuple[list[Delivery], int | None]:
    """Newest first, with the ``before`` of the following page. Raises RecordNotFound."""
    _row(connection, name)
    query = _delivery_query(name).order_by(webhook_deliveries.c.event_number.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(webhook_deliveries.c.event_number < before)
    if state is not None:
        query = query.where(webhook_deliveries.c.state == state)
    rows = connection.execute(query).all()
    life = event_store.life(connection)
    return [_delivery(row, life) for row in rows[:limit]], rows[limit - 1].event_number if len(rows) > limit else None


def delivery(connection: Connection, name: str, number: int) -> Delivery:
    """Raises RecordNotFound."""
    row = connection.execute(_delivery_query(name).where(webhook_deliveries.c.event_number == number)).one_or_none()
    if row is None:
        raise RecordNotFound(kind="delivery", name=f"{name}/{number}", command="webhook")
    return _delivery(row, event_store.life(connection))


def redeliver(connection: Connection, name: str, number: int | None, now: datetime) -> int:
    """That delivery again, whatever became of it, or (None) all that are dead. How many. Raises RecordNotFound."""
    _row(connection, name, lock=True)
    here = webhook_deliveries.c.webhook == name
    if number is not None:
        delivery(connection, name, number)
        here &= webhook_deliveries.c.event_number == number
    else:
        here &= webhook_deliveries.c.state == "dead"
    values = {"state": "waiting", "attempts": 0, "next_at": to_text(now), "problem": "", "status_code": None, "ended_at": None}
    done = connection.execute(update(webhook_deliveries).where(here).values(**values))
    connection.execute(update(webhooks).where(webhooks.c.name == name).values(failing_since=None))
    return done.rowcount


def ping(connection: Connection, name: str, number: int, now: datetime) -> Delivery:
    """Queue the event ``number`` (of kind PING) for this webhook. Raises RecordNotFound, WebhookPaused."""
    if _row(connection, name, lock=True).state != "active":
        raise WebhookPaused(name=name)
    _add(connection, name, [number], now)
    # What waits behind a failure gets its chance as well.
    _let_head_go(connection, name, now)
    return delivery(connection, name, number)


# --- the controller's half ---------------------------------------------------------------------------------------------


def exist(connection: Connection) -> bool:
    """Whether there is any webhook."""
    return connection.execute(select(webhooks.c.name).limit(1)).first() is not None


def behind(connection: Connection) -> bool:
    """Whether some webhook has not been given every event that can be read."""
    rows = connection.execute(select(webhooks.c.after_transaction, webhooks.c.after_number)).all()
    places = [Place(*row) for row in rows]
    return bool(places) and bool(event_store.places_after(connection, min(places), 1))


def fan_out(connection: Connection, now: datetime) -> bool:
    """Give every webhook its next events, up to 500 each, as deliveries; whether there may be more."""
    more = False
    for hook in connection.execute(select(webhooks).order_by(webhooks.c.name).with_for_update()).all():
        found = event_store.places_after(connection, Place(hook.after_transaction, hook.after_number), _BATCH)
        if not found:
            continue
        kinds = msgspec.json.decode(hook.kinds, type=list[str])
        _add(connection, hook.name, [row.number for row in found if _wants(hook.name, kinds, row.kind, row.subject)], now)
        reached = {"after_transaction": found[-1].transaction_id, "after_number": found[-1].number}
        connection.execute(update(webhooks).where(webhooks.c.name == hook.name).values(**reached))
        more = more or len(found) == _BATCH
    return more


def due(connection: Connection) -> list[Due]:
    """What each active webhook waits for next."""
    found = []
    for row in connection.execute(select(webhooks.c.name).where(webhooks.c.state == "active")).all():
        times = [head.next_at for head in (_head(connection, row.name), _pinged(connection, row.name)) if head is not None]
        if times:
            found.append(Due(row.name, from_text(min(times))))
    return found


def claim(connection: Connection, name: str, *, now: datetime, until: datetime, early: datetime) -> Claim | None:
    """Take the delivery that is due, for us alone until ``until``; None when there is none now, or no such webhook.

    One that would be due after ``early`` was put off by a clock that was ahead: it is due.
    """
    hook = connection.execute(select(webhooks).where(webhooks.c.name == name).with_for_update()).one_or_none()
    if hook is None or hook.state != "active":
        return None
    for head in (_pinged(connection, name), _head(connection, name)):
        if head is not None and (head.next_at <= to_text(now) or head.next_at > to_text(early)):
            break
    else:
        return None
    attempt = head.attempts + 1
    connection.execute(
        update(webhook_deliveries)
        .where(webhook_deliveries.c.webhook == name, webhook_deliveries.c.event_number == head.event_number)
        .values(attempts=attempt, next_at=to_text(until))
    )
    event = event_store.one(connection, head.event_number)
    assert event is not None  # noqa: S101 - a foreign key keeps the event as long as its delivery
    delivery_id = _delivery_id(event_store.life(connection), name, event.number)
    sealed = Sealed(hook.key_id, hook.sealed_secret)
    return Claim(name, hook.url, sealed, event, delivery_id, attempt, maybe_from_text(hook.failing_since))


def settle(connection: Connection, claimed: Claim, how: Settlement, now: datetime) -> bool:
    """Record how a claim ended; False when it is not ours any more (redelivered, deleted, taken after our time was up)."""
    # In the order of everybody else: first the webhook, then its deliveries.
    if connection.execute(select(webhooks.c.name).where(webhooks.c.name == claimed.webhook).with_for_update()).first() is None:
        return False
    here = (
        (webhook_deliveries.c.webhook == claimed.webhook)
        & (webhook_deliveries.c.event_number == claimed.event.number)
        & (webhook_deliveries.c.attempts == claimed.attempt)
        & (webhook_deliveries.c.state == "waiting")
    )
    values = {
        "state": how.state,
        "status_code": how.status_code,
        "problem": how.problem[:_LONGEST_PROBLEM],
        "next_at": to_text(how.next_at or now),
        "ended_at": None if how.state == "waiting" else to_text(now),
    }
    if connection.execute(update(webhook_deliveries).where(here).values(**values)).rowcount == 0:
        return False
    hook = update(webhooks).where(webhooks.c.name == claimed.webhook)
    if how.state == "delivered":
        connection.execute(hook.where(webhooks.c.failing_since.is_not(None)).values(failing_since=None))
    elif not claimed.is_ping:
        connection.execute(hook.where(webhooks.c.failing_since.is_(None)).values(failing_since=to_text(now)))
    if how.pause:
        connection.execute(hook.values(state="paused", revision=webhooks.c.revision + 1))
    return True


# --- below -------------------------------------------------------------------------------------------------------------


def _wants(name: str, kinds: Sequence[str], kind: str, subject: str) -> bool:
    if kind == PING:
        return False  # queued with the ping itself, and nobody else's business
    noun = kind.partition(".")[0]
    return not kinds or kind in kinds or f"{noun}.*" in kinds


def _add(connection: Connection, name: str, numbers: Iterable[int], now: datetime) -> None:
    rows = [{"webhook": name, "event_number": number, "state": "waiting", "next_at": to_text(now)} for number in numbers]
    if rows:
        connection.execute(insert(connection, webhook_deliveries).on_conflict_do_nothing(), rows)


def _let_head_go(connection: Connection, name: str, now: datetime) -> None:
    """What waits after a failure is due now; one that is being sent for the first time is left alone."""
    head = _head(connection, name)
    if head is not None and head.problem:
        here = (webhook_deliveries.c.webhook == name) & (webhook_deliveries.c.event_number == head.event_number)
        connection.execute(update(webhook_deliveries).where(here).values(next_at=to_text(now)))


def _head(connection: Connection, name: str) -> Row[Any] | None:
    query = (
        select(webhook_deliveries)
        .where(webhook_deliveries.c.webhook == name, webhook_deliveries.c.state == "waiting")
        .order_by(webhook_deliveries.c.event_number)
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def _pinged(connection: Connection, name: str) -> Row[Any] | None:
    """The newest ping, while it waits."""
    newest = (
        select(events.c.number)
        .where(events.c.subject == f"webhook/{name}", events.c.kind == PING)
        .order_by(events.c.transaction_id.desc(), events.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    here = (webhook_deliveries.c.webhook == name) & (webhook_deliveries.c.event_number == newest)
    return connection.execute(select(webhook_deliveries).where(here, webhook_deliveries.c.state == "waiting")).one_or_none()


def _row(connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    query = select(webhooks).where(webhooks.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise _not_found(name)
    return row


def _not_found(name: str) -> RecordNotFound:
    return RecordNotFound(kind="webhook", name=name[:128], command="webhook")


def _counts(connection: Connection, names: Sequence[str]) -> dict[tuple[str, str], int]:
    query = (
        select(webhook_deliveries.c.webhook, webhook_deliveries.c.state, func.count().label("number"))
        .where(webhook_deliveries.c.webhook.in_(names), webhook_deliveries.c.state.in_(["waiting", "dead"]))
        .group_by(webhook_deliveries.c.webhook, webhook_deliveries.c.state)
    )
    return {(row.webhook, row.state): row.number for row in connection.execute(query)}


def _delivery_query(name: str) -> Select[Any]:
    return (
        select(webhook_deliveries, events.c.kind, events.c.subject)
        .join(events, events.c.number == webhook_deliveries.c.event_number)
        .where(webhook_deliveries.c.webhook == name)
    )


def _delivery_id(life: str, name: str, number: int) -> str:
    return f"{life}-{name}-{number}"


def _delivery(row: Row[Any], life: str) -> Delivery:
    return Delivery(
        id=_delivery_id(life, row.webhook, row.event_number),
        webhook=row.webhook,
        event_number=row.event_number,
        kind=row.kind,
        subject=row.subject,
        state=row.state,
        attempts=row.attempts,
        next_at=from_text(row.next_at) if row.state == "waiting" and row.next_at else None,
        ended_at=maybe_from_text(row.ended_at),
        status_code=row.status_code,
        problem=row.problem,
    )


def _webhook(row: Row[Any], counts: dict[tuple[str, str], int]) -> Webhook:
    return Webhook(
        name=row.name,
        url=row.url,
        kinds=msgspec.json.decode(row.kinds, type=list[str]),
        state=row.state,
        waiting=counts.get((row.name, "waiting"), 0),
        dead=counts.get((row.name, "dead"), 0),
        created_at=from_text(row.created_at),
        created_by=row.created_by,
        revision=row.revision,
        failing_since=maybe_from_text(row.failing_since),
    )
