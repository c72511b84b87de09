"""Devices that come and go, told as events: a session begins, a lease runs out without a word, a device is heard again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from registry.store import events, twins
from registry.store.database import Database
from registry.store.twins import Session

ONLINE, OFFLINE = "device.online", "device.offline"
# A broker that was away makes a whole fleet silent at once: no transaction holds the database for long.
_AT_ONCE = 100


def tell(connection: Connection, kind: str, device: str, now: datetime, **details: str) -> None:
    """Record an event about ``device`` (its name) in the transaction of what it tells of."""
    subject = f"device/{device}"
    events.record(connection, kind=kind, subject=subject, actor=events.system("hub"), now=now, details=details)


def tell_session(connection: Connection, device: str, held: Session | None, granted: Session, now: datetime) -> None:
    """``held`` was the device's session until ``granted``. A renewal of a lease that still ran is no news."""
    if held is None:
        tell(connection, ONLINE, device, now, reason="it said hello for the first time")
    elif held.session != granted.session:
        tell(connection, ONLINE, device, now, reason="its agent was started again")
    elif held.expires_at <= now:
        tell(connection, ONLINE, device, now, reason="it was heard again")


def tell_silence(database: Database, now: datetime) -> None:
    """Record which devices went offline since this was called last. Raises DatabaseUnavailable."""
    with database.read() as connection:
        more = twins.anybody_silent(connection, now)
    while more:
        with database.write() as connection:
            names = twins.fell_silent(connection, now, _AT_ONCE)
            for name in names:
                tell(connection, OFFLINE, name, now, reason="nothing was heard of it")
        more = len(names) == _AT_ONCE
