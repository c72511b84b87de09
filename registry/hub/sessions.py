"""Who may speak for a device: a hello and the lease that is there now in, a decision out. Pure.

One session per device. A lease runs ``LEASE_S`` after the last sealed message that was heard in its session.

    nobody holds it, or the lease ran out        granted: a new session
    the same run of the agent asks again         granted: its own session (a lost welcome, a reconnect, a renewal)
    the agent was started again since            granted: a new session; the run before it is over
    anybody else                                 refused until the lease runs out

``instance`` names a run of an agent, ``starts`` counts the runs of its state folder. Of two copies of one card, started
equally often, the second is refused. A copy that is started more often takes the session, and the first one's next
hello is refused: either way one of the two is told, and an event says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from hedgerow.contracts.telemetry import Hello
from registry.store.twins import Session

LEASE_S = 60.0
# A lease is written anew only when this much of it is gone: one small write per device and interval, not per message.
RENEW_AFTER_S = 20.0


@dataclass(frozen=True)
class Granted:
    """``event`` is worth recording when it is not empty."""

    session: Session
    event: str = ""


@dataclass(frozen=True)
class Refused:
    reason: str


def decide(hello: Hello, held: Session | None, now: datetime, new_id: Callable[[], str]) -> Granted | Refused:
    """Answer a hello; ``held`` is the device's newest session, whether its lease still runs or not."""
    fresh = Session(new_id(), hello.instance, hello.starts, lease_end(now))
    if held is None:
        return Granted(fresh)
    if hello.instance == held.instance and hello.starts == held.starts:
        return Granted(Session(held.session, held.instance, held.starts, lease_end(now)))
    if hello.starts > held.starts:
        return Granted(fresh)
    if held.expires_at > now:
        left_s = (held.expires_at - now).total_seconds()
        return Refused(f"another agent holds this device's session for up to {left_s:.0f} s more")
    return Granted(fresh, event="another agent, started no more often, took the session over after its lease ran out")


def lease_end(now: datetime) -> datetime:
    """When a lease that is written now runs out: never earlier than ``LEASE_S`` after the last message."""
    return now + timedelta(seconds=LEASE_S + RENEW_AFTER_S)


def renewal_due(held: Session, now: datetime) -> bool:
    return held.expires_at - now < timedelta(seconds=LEASE_S)
