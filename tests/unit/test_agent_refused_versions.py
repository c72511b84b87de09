"""Versions that were taken back are remembered: when one of them is wanted again it is not tried a second time."""

from __future__ import annotations

from pathlib import Path

from edge_agent.decisions import DecisionLog
from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile.versions import REFUSED_MAX
from edge_agent.reconcile.way_back import FILE, AllVersions, WayBack
from edge_agent.state_store import StateStore
from hedgerow.clock import SystemClock
from hedgerow.contracts.edge import UpdatePolicy
from tests.agent_builders import exited, running, wanted
from tests.agent_trials import GOOD, NEW, OLD, UPDATE, Watched, refused


def test_a_refused_version_that_comes_back_later_is_not_tried_a_second_time() -> None:
    watched = refused()
    watched.asked = OLD
    assert watched.look(10.0, running(OLD)) is None
    assert (watched.known.good, watched.known.refused) == (GOOD.good, None)
    watched.asked = NEW
    event = watched.look(20.0, running(OLD))
    assert event is not None
    assert event.action == "refuse-update"
    assert event.reason.startswith("it was taken back before: it ended with exit code 1")
    assert watched.look(30.0, running(OLD)) is None
    assert watched.runs == ["old"]
    # Another one that was good in between changes nothing about it; other bounds do.
    newer = watched.asked = wanted(command=["newer"], update=UPDATE)
    watched.look(40.0, running(newer))
    watched.look(100.0, running(newer))
    watched.asked = NEW
    watched.look(110.0, running(newer))
    assert watched.runs == ["newer"]
    watched.asked = wanted(command=["new"], update=UpdatePolicy(max_failures=3))
    watched.look(120.0, running(newer))
    assert watched.runs == ["new"]


def test_so_many_refused_versions_are_remembered() -> None:
    watched = Watched()
    versions = [wanted(command=[f"bad-{number}"], update=UPDATE) for number in range(REFUSED_MAX + 3)]
    for at, version in enumerate(versions):
        watched.asked = version
        watched.look(10.0 * at, running(version, run=f"r{at}"))
        watched.look(10.0 * at + 5, exited(version, run=f"r{at}"))
    watched.asked = OLD
    watched.look(1000.0, running(OLD))
    assert len(watched.known.earlier) == REFUSED_MAX
    for version, command in ((versions[-1], "old"), (versions[0], "bad-0")):
        watched.asked = version
        watched.look(2000.0, running(OLD))
        assert watched.runs == [command]


def test_an_operator_gives_all_refused_versions_another_trial(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    earlier = refused()
    earlier.asked = OLD
    earlier.look(10.0, running(OLD))
    store.save(FILE, AllVersions({"m": earlier.known}))
    way_back = WayBack(store, DecisionLog(store.decisions, SystemClock()), Metrics())
    assert way_back.try_again("m") is None
    assert way_back.known["m"] == GOOD
