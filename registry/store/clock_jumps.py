"""What a wall clock that jumped may be believed: by how much it was set ahead lately, as the database remembers it.

Leases are wall-clock times. When the clock is set ahead by a day, every lease given before seems to be over, although whoever
has it was promised a day that did not pass. So what takes things away when a lease is over (the garbage collection) judges by
the *steady* time: now, less what the clock was set ahead, for as long as any lease from before can last. The controller sees
jumps (``registry/controller/clock_watch.py``) and writes them down here, because the process that judges began after them.

A clock that is set back makes leases longer, never shorter: that costs space for a while, and nothing needs to be remembered.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, delete, select

from registry.store.tables import facts
from registry.store.upsert import insert

FACT = "clock_set_ahead"


class SetAhead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Until ``until`` (by the wall clock) the steady time is ``seconds`` behind the wall clock."""

    seconds: float
    until: datetime


def steady(ahead: SetAhead | None, now: datetime) -> datetime:
    """The time that leases are judged by."""
    return now if ahead is None or now >= ahead.until else now - timedelta(seconds=ahead.seconds)


def after_jump(ahead: SetAhead | None, expected: datetime, now: datetime, longest_s: float) -> SetAhead | None:
    """What to remember now that the clock shows ``now`` where it should show ``expected``; None for nothing.

    ``longest_s`` is how long a lease from before the jump can last.
    """
    seconds = (now - steady(ahead, expected)).total_seconds()
    return SetAhead(seconds, now + timedelta(seconds=longest_s)) if seconds > 0 else None


def read(connection: Connection) -> SetAhead | None:
    """What is remembered."""
    value = connection.execute(select(facts.c.value).where(facts.c.key == FACT)).scalar_one_or_none()
    return None if value is None else msgspec.json.decode(value, type=SetAhead)


def write(connection: Connection, ahead: SetAhead | None) -> None:
    """Remember it; None forgets."""
    if ahead is None:
        connection.execute(delete(facts).where(facts.c.key == FACT))
        return
    value = msgspec.json.encode(ahead).decode()
    statement = insert(connection, facts).values(key=FACT, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=[facts.c.key], set_={"value": value}))
