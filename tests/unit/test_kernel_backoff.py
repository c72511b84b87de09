"""Backoff: never sooner than promised, never later than the cap, never giving up."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.backoff import Backoff

BACKOFFS = st.builds(
    Backoff,
    first_s=st.floats(0.001, 10),
    factor=st.floats(1, 10),
    cap_s=st.floats(0.001, 3600),
    jitter=st.floats(0, 1),
    immediate_s=st.floats(0, 1),
)
FAILURES = st.integers(1, 10**9)
CHANCES = st.floats(0, 1, exclude_max=True)


def test_the_default_doubles_up_to_a_minute() -> None:
    middle = [Backoff().delay_s(failures, lambda: 0.5) for failures in range(9)]
    assert middle == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@given(BACKOFFS, FAILURES, CHANCES)
def test_delay_stays_between_zero_and_the_cap_with_its_jitter(backoff: Backoff, failures: int, chance: float) -> None:
    delay_s = backoff.delay_s(failures, lambda: chance)
    assert 0 <= delay_s <= backoff.cap_s * (1 + backoff.jitter)


@given(BACKOFFS, FAILURES, FAILURES, CHANCES)
def test_more_failures_never_wait_less(backoff: Backoff, one: int, other: int, chance: float) -> None:
    fewer, more = sorted((one, other))
    assert backoff.delay_s(fewer, lambda: chance) <= backoff.delay_s(more, lambda: chance)


@given(BACKOFFS, st.integers(-5, 0))
def test_the_first_try_again_is_immediate(backoff: Backoff, failures: int) -> None:
    assert backoff.delay_s(failures, lambda: 0.9) == backoff.immediate_s


def test_a_fleet_does_not_come_back_in_step() -> None:
    chance = Random(1).random
    delays = [Backoff(cap_s=60).delay_s(20, chance) for _ in range(1000)]
    assert min(delays) < 50 < 70 < max(delays)
    assert 59 < sum(delays) / len(delays) < 61
