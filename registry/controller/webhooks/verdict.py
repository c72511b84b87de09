"""What becomes of a delivery after an attempt: what the receiver did in, a settlement out. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hedgerow.backoff import Backoff
from registry.store.webhooks import Claim, Settlement

_GONE, _TOO_MANY, _UNAVAILABLE = 410, 429, 503


@dataclass(frozen=True)
class Rules:
    """``timeout_s`` bounds an attempt from the first look-up to the last byte of the answer."""

    connect_s: float = 5.0
    timeout_s: float = 15.0
    give_up_s: float = 3 * 86_400.0
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=10.0, factor=2.0, cap_s=6 * 3600.0, jitter=0.2))

    @property
    def claim_s(self) -> float:
        """For how long a delivery is ours: longer than an attempt can last."""
        return self.timeout_s + 5.0

    @property
    def longest_wait_s(self) -> float:
        """Nothing is ever put off for longer than this."""
        return self.backoff.cap_s * (1.0 + self.backoff.jitter) + self.claim_s


@dataclass(frozen=True)
class Answered:
    """The receiver's answer. ``retry_after_s``: it named a time."""

    status_code: int
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Failed:
    """There was no answer; ``problem`` is a sentence without its end."""

    problem: str


def judge(claimed: Claim, seen: Answered | Failed, rules: Rules, now: datetime, random: Callable[[], float]) -> Settlement:
    """2xx is delivered; 410 pauses the webhook; anything else is tried again until it is too old.

    Given up is a delivery whose event is older than ``give_up_s`` once the receiver has failed for that long: one that was
    paused, or out of reach, gets its time for what waited meanwhile.
    """
    status = seen.status_code if isinstance(seen, Answered) else None
    if isinstance(seen, Answered) and 200 <= seen.status_code < 300:
        return Settlement("delivered", status)
    problem = _problem(seen)
    if claimed.is_ping:
        return Settlement("dead", status, problem)
    if status == _GONE:
        return Settlement("waiting", status, problem, next_at=now, pause=True)
    give_up = timedelta(seconds=rules.give_up_s)
    failing_since = claimed.failing_since or now
    if now - failing_since >= give_up and now - claimed.event.at >= give_up:
        return Settlement("dead", status, problem)
    return Settlement("waiting", status, problem, next_at=now + timedelta(seconds=_delay_s(claimed, seen, rules, random)))


def _delay_s(claimed: Claim, seen: Answered | Failed, rules: Rules, random: Callable[[], float]) -> float:
    delay_s = rules.backoff.delay_s(claimed.attempt, random)
    if isinstance(seen, Answered) and seen.status_code in (_TOO_MANY, _UNAVAILABLE) and seen.retry_after_s is not None:
        return max(delay_s, min(seen.retry_after_s, rules.backoff.cap_s))
    return delay_s


def _problem(seen: Answered | Failed) -> str:
    if isinstance(seen, Failed):
        return seen.problem
    if seen.status_code == _GONE:
        return "the receiver answered 410 (gone): it wants no more events"
    if 300 <= seen.status_code < 400:
        return f"the receiver answered {seen.status_code}: redirects are not followed; give the webhook the new URL"
    return f"the receiver answered {seen.status_code}"
