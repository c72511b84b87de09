"""When a device renews its certificate, whatever its clock says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.link.certificate_plan import LEAST_SHARE, RENEW_SHARE, SPREAD_SHARE, Validity, wait_s

BEGINS = datetime(2026, 3, 1, tzinfo=UTC)
DAY_S = 86_400.0
MONTH = Validity(BEGINS, BEGINS + timedelta(days=30), 0.0)


def test_none_is_asked_for_at_once() -> None:
    assert wait_s(None, BEGINS, 0.0, fresh=False) == 0.0


def test_it_is_renewed_at_two_thirds_of_its_life() -> None:
    assert wait_s(MONTH, BEGINS, 0.0, fresh=True) == 20 * DAY_S
    assert wait_s(MONTH, BEGINS + timedelta(days=19), 0.0, fresh=False) == DAY_S
    for days in (20, 25, 31, 400):
        assert wait_s(MONTH, BEGINS + timedelta(days=days), 0.0, fresh=False) == 0.0


def test_a_fleet_that_was_enrolled_at_once_does_not_renew_at_once() -> None:
    waits = [wait_s(Validity(MONTH.begins, MONTH.ends, spread), BEGINS, 0.0, fresh=True) for spread in (0.0, 0.5, 0.99)]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] - waits[-1] > DAY_S
    assert min(waits) > (RENEW_SHARE - SPREAD_SHARE) * 30 * DAY_S


def test_a_clock_that_was_never_set_leaves_the_time_that_passed() -> None:
    never = datetime(1970, 1, 2, tzinfo=UTC)
    assert wait_s(MONTH, never, 0.0, fresh=False) == 20 * DAY_S
    assert wait_s(MONTH, never, 21 * DAY_S, fresh=True) == 0.0


def test_a_clock_that_is_years_ahead_does_not_renew_again_and_again() -> None:
    ahead = BEGINS + timedelta(days=3000)
    assert wait_s(MONTH, ahead, 0.0, fresh=True) == LEAST_SHARE * 30 * DAY_S
    assert wait_s(MONTH, ahead, 3 * DAY_S + 1, fresh=True) == 0.0
    # At a start nothing is known of the clock yet.
    assert wait_s(MONTH, ahead, 0.0, fresh=False) == 0.0


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - st.just adds it
    st.floats(0.0, 1e9),
    st.floats(0.0, 1.0, exclude_max=True),
    st.floats(5.0, 1e8),
)
def test_a_fresh_one_is_never_renewed_at_once_and_never_kept_beyond_its_share(
    now: datetime, held_s: float, spread: float, life_s: float
) -> None:
    validity = Validity(BEGINS, BEGINS + timedelta(seconds=life_s), spread)
    assert wait_s(validity, now, 0.0, fresh=True) >= (validity.ends - BEGINS).total_seconds() * LEAST_SHARE
    assert 0.0 <= wait_s(validity, now, held_s, fresh=False) <= DAY_S + life_s * RENEW_SHARE
