"""Old events go, a few at a time; what a webhook still has to be sent stays, and so does the newest one of all.

The newest stays because its number must never be given again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, tuple_

from registry.store.tables import events, webhook_deliveries, webhooks
from registry.store.time_text import to_text


@dataclass(frozen=True)
class Swept:
    """How many of the events looked at went; ``reached`` is the last one looked at, None when there are no more old ones."""

    deleted: int
    reached: int | None


def sweep(connection: Connection, *, older_than: datetime, after: int, limit: int) -> Swept:
    """Look at ``limit`` events after number ``after`` (0 for the oldest) and delete those that are old and not needed."""
    query = select(events.c.number, events.c.at).where(events.c.number > after).order_by(events.c.number).limit(limit)
    rows = connection.execute(query).all()
    old = [row.number for row in rows if row.at < to_text(older_than)]
    if not old:
        return Swept(0, None)
    gone = connection.execute(delete(events).where(events.c.number.in_(_not_needed(connection, old)))).rowcount
    return Swept(gone, rows[-1].number if len(rows) == limit else None)


def _not_needed(connection: Connection, numbers: Sequence[int]) -> list[int]:
    newest = select(func.max(events.c.number)).scalar_subquery()
    waiting = select(webhook_deliveries.c.event_number).where(
        webhook_deliveries.c.event_number == events.c.number, webhook_deliveries.c.state == "waiting"
    )
    # Not given to some webhook yet.
    ahead = select(webhooks.c.name).where(
        tuple_(webhooks.c.after_transaction, webhooks.c.after_number) < tuple_(events.c.transaction_id, events.c.number)
    )
    query = select(events.c.number).where(
        events.c.number.in_(numbers), events.c.number != newest, ~waiting.exists(), ~ahead.exists()
    )
    rows: Sequence[Row[Any]] = connection.execute(query).all()
    return [row.number for row in rows]
