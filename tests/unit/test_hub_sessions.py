"""Who gets a device's session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from registry.hub.sessions import LEASE_S, RENEW_AFTER_S, Granted, Refused, decide, lease_end, renewal_due
from registry.store.twins import Session
from tests.hub_parts import say_hello

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def held(instance: str = "a", starts: int = 3, left_s: float = 30.0) -> Session:
    return Session("old", instance, starts, NOW + timedelta(seconds=left_s))


def answer(lease: Session | None, instance: str = "a", starts: int = 3) -> Granted | Refused:
    return decide(say_hello("u", instance=instance, starts=starts), lease, NOW, lambda: "new")


@pytest.mark.parametrize(
    ("lease", "instance", "starts", "session"),
    [
        (None, "a", 1, "new"),
        (held(), "a", 3, "old"),
        (held(left_s=-1), "a", 3, "old"),
        (held(), "b", 4, "new"),
        (held(), "a", 4, "new"),
        (held(left_s=-1), "b", 3, "new"),
        (held(left_s=-1), "b", 1, "new"),
    ],
    ids=["first", "asks again", "asks again, late", "restarted", "restarted, same instance", "lapsed, copy", "lapsed, re-imaged"],
)
def test_granted(lease: Session | None, instance: str, starts: int, session: str) -> None:
    decision = answer(lease, instance, starts)
    assert isinstance(decision, Granted)
    assert decision.session == Session(session, instance, starts, lease_end(NOW))


@pytest.mark.parametrize(("instance", "starts"), [("b", 3), ("b", 2), ("a", 2)])
def test_a_second_holder_is_refused_while_the_lease_runs(instance: str, starts: int) -> None:
    decision = answer(held(), instance, starts)
    assert isinstance(decision, Refused)
    assert "30 s" in decision.reason


def test_taking_over_a_lapsed_session_of_another_is_worth_an_event() -> None:
    taken, restarted = answer(held(left_s=-1), "b", 3), answer(held(), "b", 4)
    assert isinstance(taken, Granted)
    assert "took the session over" in taken.event
    assert restarted == Granted(Session("new", "b", 4, lease_end(NOW)))


def test_a_lease_outlives_the_last_message_by_what_the_device_was_told() -> None:
    written = Session("s", "a", 1, lease_end(NOW))
    just_before_renewal = NOW + timedelta(seconds=RENEW_AFTER_S)
    assert not renewal_due(written, just_before_renewal)
    assert renewal_due(written, just_before_renewal + timedelta(seconds=1))
    assert (written.expires_at - just_before_renewal).total_seconds() >= LEASE_S
