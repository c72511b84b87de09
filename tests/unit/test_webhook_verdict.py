"""What becomes of a delivery after an attempt, and the signature that it carries. Pure."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.events import Actor, Event
from hedgerow.contracts.webhook_signature import is_genuine, new_secret, sign
from registry.controller.webhooks.verdict import Answered, Failed, Rules, judge
from registry.store.webhooks import PING, Claim
from registry.vault import Sealed
from tests.registry_stores import NOW, after

RULES = Rules()
THREE_DAYS_S = 3 * 86_400.0


def claim(
    *, attempt: int = 1, kind: str = "model.registered", event_at_s: float = 0, failing_since_s: float | None = None
) -> Claim:
    event = Event(
        cursor="c", number=1, at=after(event_at_s), kind=kind, subject="model/a:1", actor=Actor(id="1", name="a", role="owner")
    )
    failing_since = None if failing_since_s is None else after(failing_since_s)
    return Claim("hook", "https://receiver.example", Sealed("k", b""), event, "id", attempt, failing_since)


def middle() -> float:
    return 0.5


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    how = judge(claim(), Answered(status), RULES, NOW, middle)
    assert (how.state, how.status_code, how.problem, how.pause) == ("delivered", status, "", False)


@pytest.mark.parametrize("seen", [Answered(500), Answered(404), Answered(302), Answered(199), Failed("nobody there")])
def test_anything_else_waits_longer_each_time(seen: Answered | Failed) -> None:
    waits = []
    for attempt in range(1, 14):
        how = judge(claim(attempt=attempt), seen, RULES, NOW, middle)
        assert how.state == "waiting"
        assert how.next_at is not None
        waits.append((how.next_at - NOW).total_seconds())
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[-1] == 6 * 3600
    assert waits == sorted(waits)


def test_the_waits_are_spread() -> None:
    earliest = judge(claim(), Failed("x"), RULES, NOW, lambda: 0.0).next_at
    waits = [earliest, judge(claim(), Failed("x"), RULES, NOW, lambda: 0.999).next_at]
    assert waits[0] == after(8)
    assert waits[1] is not None
    assert after(11.9) < waits[1] < after(12)


def test_about_twenty_attempts_in_three_days() -> None:
    at_s, attempts = 0.0, 0
    while True:
        attempts += 1
        how = judge(claim(attempt=attempts, failing_since_s=0), Failed("x"), RULES, after(at_s), middle)
        if how.state == "dead":
            break
        assert how.next_at is not None
        at_s = (how.next_at - NOW).total_seconds()
    assert THREE_DAYS_S <= at_s < THREE_DAYS_S + 6.1 * 3600
    assert 15 <= attempts <= 30


@pytest.mark.parametrize(
    ("event_at_s", "failing_since_s", "now_s", "state"),
    [
        (0, 0, THREE_DAYS_S - 1, "waiting"),
        (0, 0, THREE_DAYS_S, "dead"),
        # What came later gets its own three days, although the receiver has failed for long.
        (THREE_DAYS_S - 60, 0, THREE_DAYS_S, "waiting"),
        # It was paused, or out of reach: what waited meanwhile is old, and has its chance all the same.
        (0, None, 10 * THREE_DAYS_S, "waiting"),
        (0, 10 * THREE_DAYS_S - 60, 10 * THREE_DAYS_S, "waiting"),
    ],
)
def test_giving_up(event_at_s: float, failing_since_s: float | None, now_s: float, state: str) -> None:
    how = judge(claim(event_at_s=event_at_s, failing_since_s=failing_since_s), Failed("x"), RULES, after(now_s), middle)
    assert how.state == state


def test_410_pauses_and_keeps_the_event() -> None:
    how = judge(claim(), Answered(410), RULES, NOW, middle)
    assert (how.state, how.pause) == ("waiting", True)
    assert "gone" in how.problem


def test_a_ping_is_tried_once() -> None:
    assert judge(claim(kind=PING), Answered(500), RULES, NOW, middle).state == "dead"
    assert judge(claim(kind=PING), Answered(410), RULES, NOW, middle).pause is False
    assert judge(claim(kind=PING), Answered(200), RULES, NOW, middle).state == "delivered"


@pytest.mark.parametrize(
    ("status", "retry_after_s", "wait_s"),
    [(429, 120, 120), (503, 120, 120), (503, 1, 10), (503, 10**9, 6 * 3600), (500, 120, 10), (503, None, 10)],
)
def test_retry_after_is_heeded_within_bounds(status: int, retry_after_s: float | None, wait_s: float) -> None:
    how = judge(claim(), Answered(status, retry_after_s), RULES, NOW, middle)
    assert how.next_at == NOW + timedelta(seconds=wait_s)


@given(st.integers(1, 10**6), st.floats(0, 0.999))
def test_nothing_is_put_off_for_longer_than_said(attempt: int, spread: float) -> None:
    how = judge(claim(attempt=attempt), Answered(503, 1e9), RULES, NOW, lambda: spread)
    assert how.next_at is not None
    assert 0 < (how.next_at - NOW).total_seconds() <= RULES.longest_wait_s


# --- signatures --------------------------------------------------------------------------------------------------------


def test_the_signature_is_what_the_page_says() -> None:
    header = sign("whsec_x", b'{"a":1}', NOW)
    moment = str(int(NOW.timestamp()))
    digest = hmac.new(b"whsec_x", f"{moment}.".encode() + b'{"a":1}', hashlib.sha256).hexdigest()
    assert header == f"t={moment},v1={digest}"


@given(st.binary(), st.binary())
def test_only_the_signed_body_is_genuine(body: bytes, other: bytes) -> None:
    secret = "whsec_x"
    header = sign(secret, body, NOW)
    assert is_genuine(secret, header, body, NOW)
    assert is_genuine(secret, header, other, NOW) is (body == other)
    assert not is_genuine("whsec_y", header, body, NOW)


@pytest.mark.parametrize("late_s", [-301, 301, 10**9])
def test_an_old_signature_is_refused(late_s: float) -> None:
    assert not is_genuine("s", sign("s", b"x", NOW), b"x", after(late_s))
    assert is_genuine("s", sign("s", b"x", NOW), b"x", after(299))


def test_one_of_several_signatures_is_enough() -> None:
    moment, good = sign("s", b"x", NOW).split(",")
    assert is_genuine("s", f"{moment},v1=00,{good},v2=11", b"x", NOW)
    assert not is_genuine("s", f"{moment},{good.replace('v1', 'v0')}", b"x", NOW)


@given(st.text())
def test_nonsense_is_refused(header: str) -> None:
    assert not is_genuine("s", header, b"x", NOW)
    assert not is_genuine("s", f"t={int(NOW.timestamp())},v1={header}", b"x", NOW)


def test_secrets_are_long_and_differ() -> None:
    made = {new_secret() for _ in range(10)}
    assert len(made) == 10
    assert all(secret.startswith("whsec_") and len(secret) >= 49 for secret in made)
