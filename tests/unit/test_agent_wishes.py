"""What other threads want of the supervisor is taken once, kept while it cannot be done, and not asked for too often."""

from __future__ import annotations

from typing import Any

from edge_agent.reconcile.plan import plan
from edge_agent.reconcile.situation import Seen, Situation, Wanted
from edge_agent.reconcile.wishes import NETWORK_RESET_SPACING_S, Taken, Wishes, still_to_restart
from tests.agent_builders import BOOT, exited, running, wanted

MODULE = wanted()


def situation(module: Wanted, seen: Seen | None, **fields: Any) -> Situation:
    values: dict[str, Any] = {"now_s": 0.0, "boot_id": BOOT, "restart": {"m": "a person"}}
    return Situation(wanted={"m": module}, seen={"m": seen} if seen else {}, **(values | fields))


def left(now: Situation) -> list[str]:
    return list(still_to_restart(now, plan(now)))


def test_wishes_are_taken_once() -> None:
    wishes = Wishes()
    wishes.restart("m", "a person")
    wishes.again("n")
    assert wishes.take() == Taken({"m": "a person"}, frozenset({"n"}), network=False)
    assert wishes.take() == Taken()


def test_a_link_that_comes_and_goes_ends_no_waiting_over_and_over() -> None:
    wishes = Wishes()
    told = []
    for second in range(0, 130, 2):
        wishes.network_back(float(second))
        told.append(wishes.take().network)
    assert sum(told) == 1 + int(128 // NETWORK_RESET_SPACING_S)


def test_a_restart_is_begun_once_and_waits_while_it_cannot_be() -> None:
    assert left(situation(MODULE, running(MODULE))) == []
    assert left(situation(MODULE, running(MODULE), busy=frozenset({"m"}))) == ["m"]
    assert left(situation(MODULE, None, blind={"process": "it hangs"})) == ["m"]


def test_what_does_not_run_needs_no_stop() -> None:
    assert left(situation(MODULE, exited(MODULE))) == []
    assert left(situation(MODULE, None)) == []
    assert list(still_to_restart(situation(MODULE, None, restart={"gone": "a person"}), [])) == []
