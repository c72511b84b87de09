"""Leases with fencing tokens: who may act for a role now, and a number that unmasks a holder that lost it.

Their ends are wall-clock times, and clocks jump. A lease that lasts longer than any lease can was given by a clock that was
ahead, or is looked at by one that is behind: it is cut to the longest time there is, so that a dead holder blocks nobody for
longer; one that lives renews it. A lease that somebody let go of is over on every clock. What a holder writes is safe whatever
clocks say: it shows its token (:func:`check`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from registry.errors import LeaseLost
from registry.store.tables import leases
from registry.store.time_text import from_text, to_text

_RELEASED = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Lease:
    """Held until ``expires_at`` unless renewed; ``token`` grows by one with every new holder."""

    name: str
    holder: str
    token: int
    expires_at: datetime


def acquire(
    connection: Connection,
    name: str,
    holder: str,
    ttl_s: float,
    now: datetime,
    *,
    longest_s: float = 0.0,
    judged_at: datetime | None = None,
) -> Lease | None:
    """Take or renew the lease inside a writing transaction; None while somebody else holds it (commit then, too).

    ``longest_s``: what others take this lease for, where that is longer than ``ttl_s``. ``judged_at``: the time by which another
    holder's lease must be over, where that is not ``now`` (see ``clock_jumps.py``).
    """
    row = connection.execute(select(leases).where(leases.c.name == name).with_for_update()).one_or_none()
    lease = Lease(name, holder, 1, now + timedelta(seconds=ttl_s))
    values = {"name": name, "holder": holder, "expires_at": to_text(lease.expires_at)}
    if row is None:
        try:
            with connection.begin_nested():
                connection.execute(leases.insert().values(token=1, **values))
        except IntegrityError:
            return None  # somebody else took it between our look and our insert
        return lease
    ends = from_text(row.expires_at)
    if row.holder != holder and ends > (judged_at or now):
        latest = now + timedelta(seconds=max(ttl_s, longest_s))
        if ends > latest:
            connection.execute(update(leases).where(leases.c.name == name).values(expires_at=to_text(latest)))
        return None
    token = row.token if row.holder == holder else row.token + 1
    connection.execute(update(leases).where(leases.c.name == name).values(token=token, **values))
    return Lease(name, holder, token, lease.expires_at)


def find(connection: Connection, name: str) -> Lease | None:
    """Who has the lease now, or had it last; None when nobody ever had."""
    row = connection.execute(select(leases).where(leases.c.name == name).with_for_update()).one_or_none()
    return None if row is None else Lease(row.name, row.holder, row.token, from_text(row.expires_at))


def check(connection: Connection, lease: Lease) -> None:
    """Raise LeaseLost unless ``lease`` is still the newest; called in the transaction that it protects."""
    row = connection.execute(select(leases).where(leases.c.name == lease.name).with_for_update()).one_or_none()
    if row is None or row.token != lease.token:
        raise LeaseLost(name=lease.name, holder=row.holder if row else "nobody")


def release(connection: Connection, lease: Lease) -> None:
    """Let go at once instead of at the end of the time; a lost lease is left alone. The row keeps its token."""
    connection.execute(
        update(leases).where(leases.c.name == lease.name, leases.c.token == lease.token).values(expires_at=to_text(_RELEASED))
    )
