"""Restarts: the first at once, then growing delays to a cap, never an end, and what takes the count back to zero."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.reconcile.restart_policy import (
    BACKOFF,
    FORGIVEN_EVERY_S,
    HEALTHY_RESET_S,
    Moment,
    forgotten,
    learn,
    ordered,
    start_failed,
    verdict,
    wanted_again,
)
from edge_agent.reconcile.situation import History
from tests.agent_builders import BOOT, exited, running, wanted

MODULE = wanted()


def at(now_s: float, *, boot: str = BOOT, version: int = 1) -> Moment:
    return Moment(now_s, boot, version, lambda: 0.5)


def crash(past: History, number: int, moment: Moment) -> History:
    past = learn(past, running(MODULE, run=f"r{number}"), "always", moment)
    return learn(past, exited(MODULE, run=f"r{number}"), "always", moment)


def test_the_first_restart_is_at_once_and_then_the_delays_grow_to_a_minute_for_ever() -> None:
    past, delays, now_s = History(), [], 100.0
    for number in range(200):
        past = crash(past, number, at(now_s))
        delays.append(past.retry_at_s - now_s)
        now_s = past.retry_at_s
    assert delays[:5] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert delays == sorted(delays)
    assert max(delays) <= 60.0
    assert past.restarts == 200


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_no_delay_is_above_the_cap(failures: int, chance: float) -> None:
    assert 0.0 <= BACKOFF.delay_s(failures, lambda: chance) <= 60.0


def test_a_failure_is_counted_once_however_often_it_is_seen() -> None:
    past = crash(History(), 1, at(100.0))
    assert learn(past, exited(MODULE), "always", at(105.0)) == past


def test_ten_healthy_minutes_clear_the_count() -> None:
    past = crash(crash(History(), 1, at(100.0)), 2, at(101.0))
    assert past.failures == 2
    healthy = running(MODULE, run="r3")
    past = learn(past, healthy, "always", at(110.0))
    assert learn(past, healthy, "always", at(110.0 + HEALTHY_RESET_S - 1)).failures == 2
    assert learn(past, healthy, "always", at(110.0 + HEALTHY_RESET_S)).failures == 0


def test_a_long_run_that_ends_unseen_clears_the_count_too() -> None:
    past = crash(crash(History(), 1, at(100.0)), 2, at(101.0))
    past = learn(past, running(MODULE, run="r3"), "always", at(110.0))
    past = learn(past, exited(MODULE, run="r3"), "always", at(110.0 + HEALTHY_RESET_S))
    assert past.failures == 1
    assert past.retry_at_s == 110.0 + HEALTHY_RESET_S


def test_a_new_desired_state_clears_the_count_and_the_delay() -> None:
    past = crash(crash(History(), 1, at(100.0)), 2, at(101.0))
    past = learn(past, exited(MODULE, run="r2"), "always", at(101.5, version=2))
    assert (past.failures, past.retry_at_s) == (0, 0.0)


def test_a_reboot_is_no_failure_of_the_module() -> None:
    past = learn(History(), running(MODULE), "always", at(9000.0))
    past = learn(past, exited(MODULE, exit_code=None), "always", at(20.0, boot="boot-2"))
    assert (past.failures, past.restarts, past.retry_at_s) == (0, 0, 0.0)


def test_unhealthiness_counts_once_and_the_stop_it_leads_to_does_not_count_again() -> None:
    sick = running(MODULE, health="unhealthy", detail="GET /v2/health/ready answered 503")
    past = learn(History(), sick, "on-unhealthy", at(100.0))
    assert (past.failures, past.retry_at_s) == (1, 100.0)
    past = ordered(learn(past, sick, "on-unhealthy", at(101.0)), "unhealthy", "r1")
    clean = exited(MODULE, exit_code=0)
    past = learn(past, clean, "on-unhealthy", at(102.0))
    assert past.failures == 1
    # A clean end is a reason to stay down for this policy, but not after a stop for unhealthiness.
    assert verdict("on-unhealthy", clean, past).restart
    assert not verdict("on-unhealthy", clean, History()).restart


def test_a_module_that_recovers_by_itself_fails_anew_later() -> None:
    sick = running(MODULE, health="unhealthy", detail="slow")
    past = learn(History(), sick, "always", at(100.0))
    past = learn(past, running(MODULE), "always", at(101.0))
    past = learn(past, exited(MODULE), "always", at(102.0))
    assert past.failures == 2


def test_policies_without_healing_do_not_count_unhealthiness() -> None:
    sick = running(MODULE, health="unhealthy")
    assert learn(History(), sick, "on-failure", at(100.0)).failures == 0


def test_what_the_operator_stopped_is_no_failure() -> None:
    past = ordered(learn(History(), running(MODULE), "always", at(100.0)), "stopped", "r1")
    past = learn(past, exited(MODULE, exit_code=143), "always", at(101.0))
    assert (past.failures, past.restarts) == (0, 0)
    assert verdict("never", exited(MODULE, exit_code=143), past).restart


def test_a_start_that_fails_is_tried_again_later_and_later() -> None:
    past = learn(History(), None, "always", at(100.0))
    past = start_failed(past, "no such program", at(100.0))
    assert (past.failures, past.retry_at_s, past.problem) == (1, 100.0, "no such program")
    past = start_failed(past, "no such program", at(100.0))
    assert past.retry_at_s == 101.0


def test_a_good_while_takes_a_part_of_the_count_away() -> None:
    past = History()
    for number in range(10):
        past = crash(past, number, at(100.0 + number))
    assert past.failures == 10
    past = learn(past, running(MODULE, run="r11"), "always", at(200.0))
    past = learn(past, exited(MODULE, run="r11"), "always", at(200.0 + 3 * FORGIVEN_EVERY_S))
    assert past.failures == 8


def test_a_module_that_ends_every_nine_minutes_hardly_waits() -> None:
    past, now_s = History(), 0.0
    for number in range(50):
        past = learn(past, running(MODULE, run=f"r{number}"), "always", at(now_s))
        now_s += 540.0
        past = learn(past, exited(MODULE, run=f"r{number}"), "always", at(now_s))
        assert past.retry_at_s - now_s <= 1.0
        now_s = past.retry_at_s


def test_a_new_cause_ends_the_waiting() -> None:
    past = crash(crash(crash(History(), 1, at(100.0)), 2, at(101.0)), 3, at(102.0))
    assert (past.failures, past.retry_at_s) == (3, 104.0)
    past = forgotten(past)
    assert (past.failures, past.retry_at_s) == (0, 0.0)
    assert past.restarts == 3, "what is told of it stays true"


def test_a_restart_that_is_wanted_overrules_the_policy_and_is_no_failure() -> None:
    finished = exited(MODULE, exit_code=0)
    past = learn(History(), finished, "never", at(100.0))
    assert not verdict("never", finished, past).restart
    past = wanted_again(past, finished)
    assert verdict("never", finished, past).restart
    assert learn(past, finished, "never", at(101.0)).failures == 0
