"""New versions on trial: committed when they were well for their time, taken back for their own failures, never by halves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_agent.decisions import DecisionLog
from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile import trial
from edge_agent.reconcile.restart_policy import Moment
from edge_agent.reconcile.situation import History, ProofState, Seen
from edge_agent.reconcile.trial import REBOOTS_MAX, REQUESTS_MIN, Event, Look, Signals
from edge_agent.reconcile.versions import Versions
from edge_agent.reconcile.way_back import Circumstances, WayBack
from edge_agent.state_store import StateStore
from hedgerow.clock import SystemClock
from hedgerow.contracts.edge import DesiredModule, Probe, UpdatePolicy
from tests.agent_builders import BOOT, exited, pin, running, wanted
from tests.agent_trials import GOOD, NEW, OLD, UPDATE, Watched, refused


def test_a_first_version_is_kept_without_a_word_when_it_was_well_for_its_time() -> None:
    watched = Watched(Versions(), OLD)
    watched.look(0.0, running(OLD))
    assert watched.known.good is None
    watched.look(59.0, running(OLD))
    assert watched.known.good is None
    watched.look(60.0, running(OLD))
    assert watched.known == GOOD
    assert watched.events == []


def test_a_first_version_that_fails_is_never_taken_back() -> None:
    watched = Watched(Versions(), OLD)
    for number in range(20):
        watched.look(number * 100.0, exited(OLD, run=f"r{number}"), start_problem="no such program", start_tried=True)
    assert watched.runs == ["old"]
    assert watched.events == []


def test_a_new_version_is_committed_after_its_time_and_not_before() -> None:
    watched = Watched()
    assert watched.look(0.0, running(OLD)) is None
    assert watched.look(5.0, None) is None
    assert (watched.look(10.0, running(NEW, health="starting")) or Event("commit", "")).action == "trial"
    assert watched.look(20.0, running(NEW)) is None
    assert watched.look(79.0, running(NEW)) is None
    assert (watched.look(80.0, running(NEW)) or Event("trial", "")).action == "commit"
    assert watched.known == Versions(good=DesiredModule(spec=NEW.spec))


def test_a_crash_takes_it_back_and_the_same_version_is_not_tried_again() -> None:
    watched = Watched()
    watched.look(0.0, running(NEW))
    event = watched.look(5.0, exited(NEW))
    assert event is not None
    assert event.action == "rollback"
    assert "exit code 1" in event.reason
    assert watched.runs == ["old"]
    assert watched.look(500.0, running(OLD)) is None
    assert watched.runs == ["old"]
    # Neither does the next desired state that asks for the same, or only for another place in the order.
    watched.asked = wanted(command=["new"], update=UPDATE, startup_order=3)
    watched.look(600.0, running(OLD))
    assert watched.runs == ["old"]


def test_what_gives_a_refused_version_another_trial() -> None:
    other_bounds = refused()
    other_bounds.asked = wanted(command=["new"], update=UpdatePolicy(max_failures=3))
    other_bounds.look(10.0, running(OLD))
    assert other_bounds.runs == ["new"]

    other_probe = refused()
    other_probe.asked = wanted(command=["new"], update=UPDATE, probe=Probe(path="/health"))
    other_probe.look(10.0, running(OLD))
    assert other_probe.runs == ["new"]

    third = refused()
    third.asked = wanted(command=["newer"])
    third.look(10.0, running(OLD))
    assert third.runs == ["newer"]
    assert third.known.good == GOOD.good


def test_failures_up_to_the_bound_are_borne() -> None:
    asked = wanted(command=["new"], update=UpdatePolicy(max_failures=2))
    watched = Watched(asked=asked)
    watched.look(0.0, running(asked, run="r1"))
    assert watched.look(1.0, exited(asked, run="r1")) is None
    assert watched.look(2.0, exited(asked, run="r1")) is None, "the same end was counted twice"
    watched.look(3.0, running(asked, run="r2", health="unhealthy", detail="GET / answered 500"))
    assert watched.look(4.0, running(asked, run="r2", health="unhealthy", detail="GET / answered 500")) is None
    # The stop that unhealthiness leads to is no failure of its own.
    stopped = History(ordered_stop="unhealthy", ordered_run="r2")
    assert watched.look(5.0, exited(asked, run="r2", exit_code=143), past=stopped) is None
    watched.look(6.0, running(asked, run="r3"))
    event = watched.look(7.0, exited(asked, run="r3"))
    assert event is not None
    assert "failure 3 on trial, 2 allowed" in event.reason


def test_unhealthiness_that_comes_and_goes_is_counted_each_time() -> None:
    asked = wanted(command=["new"], update=UpdatePolicy(max_failures=1), restart_policy="never")
    watched = Watched(asked=asked)
    sick = running(asked, health="unhealthy", detail="slow")
    watched.look(0.0, sick)
    watched.look(1.0, running(asked))
    event = watched.look(2.0, sick)
    assert event is not None
    assert event.action == "rollback"


def test_what_is_not_ready_in_time_goes_back() -> None:
    watched = Watched()
    watched.look(0.0, running(NEW, health="starting"))
    assert watched.look(119.0, running(NEW, health="starting")) is None
    event = watched.look(120.0, running(NEW, health="starting", detail="GET /health failed"))
    assert event is not None
    assert "not ready within 120 s: GET /health failed" in event.reason


def test_a_start_that_the_engine_refuses_goes_back_and_one_that_fails_otherwise_has_its_time() -> None:
    refused = Watched()
    event = refused.look(0.0, None, start_problem="no such program", start_tried=True)
    assert event is not None
    assert "no such program" in event.reason
    unlucky = Watched()
    unlucky.look(0.0, None, start_tried=True)
    assert unlucky.look(100.0, None, start_tried=True) is None
    event = unlucky.look(120.0, None)
    assert event is not None
    assert event.action == "rollback"


def test_rates_and_latencies_above_the_bounds_go_back_once_there_is_enough_to_judge() -> None:
    asked = wanted(command=["new"], update=UpdatePolicy(max_error_rate=0.1, max_latency_p95_s=0.5))
    for signals, problem in (
        (Signals(REQUESTS_MIN, 3, 0.1), "3 of 20 answers were errors, 10.00% are allowed"),
        (Signals(REQUESTS_MIN, 2, 0.75), "p95 latency is 0.75 s, 0.5 s are allowed"),
    ):
        watched = Watched(asked=asked)
        watched.look(0.0, running(asked))
        assert watched.look(1.0, running(asked), signals=replace(signals, requests=REQUESTS_MIN - 1)) is None
        event = watched.look(2.0, running(asked), signals=signals)
        assert event is not None
        assert problem in event.reason
    well = Watched(asked=asked)
    well.look(0.0, running(asked))
    assert well.look(59.0, running(asked), signals=Signals(1000, 100, 0.5)) is None
    event = well.look(60.0, running(asked), signals=Signals(5, 5, None))
    assert event is not None
    assert event == Event("commit", "it was well for 60 s; too few of its answers were seen to judge them")


def test_a_failed_proof_refuses_the_update_before_anything_is_stopped() -> None:
    old, new = wanted(image=pin("a"), command=[]), wanted(image=pin("b"), command=[])
    watched = Watched(Versions(good=DesiredModule(spec=old.spec, image=old.image)), new)
    assert watched.look(0.0, running(old)) is None
    assert trial.needs_proof(new, watched.known)
    event = watched.look(1.0, running(old), proof=ProofState(False, "row 3 differs"))
    assert event == Event("refuse-update", "row 3 differs")
    assert trial.target(new, watched.known).image == old.image


def test_a_proof_that_came_out_is_remembered_and_only_onnx_images_need_one() -> None:
    new = wanted(image=pin("b"), command=[])
    watched = Watched(GOOD, new)
    watched.look(0.0, running(OLD))
    watched.look(1.0, running(OLD), proof=ProofState(True))
    assert not trial.needs_proof(new, watched.known)
    for other in (NEW, wanted(image=pin("b", "docker"), kind="docker")):
        known, _ = trial.advance(GOOD, Look(other, None, History(), Moment(0.0, BOOT, 1, lambda: 0.5)))
        assert not trial.needs_proof(other, known)


def test_a_power_cut_is_no_failure_but_many_of_them_are() -> None:
    watched = Watched()
    watched.look(0.0, running(NEW, run="r0"))
    for number in range(REBOOTS_MAX):
        lost = exited(NEW, run=f"r{number}", exit_code=None, reason="the machine restarted")
        assert watched.look(5.0, lost, boot=f"after-{number}") is None
        assert watched.look(6.0, running(NEW, run=f"r{number + 1}"), boot=f"after-{number}") is None
    event = watched.look(5.0, exited(NEW, run=f"r{REBOOTS_MAX}", exit_code=None), boot="last")
    assert event is not None
    assert "the machine restarted 3 times" in event.reason


def test_after_a_power_cut_the_time_begins_anew() -> None:
    watched = Watched()
    watched.look(1000.0, running(NEW, run="r1"))
    watched.look(5.0, exited(NEW, run="r1", exit_code=None), boot="boot-2")
    watched.look(10.0, running(NEW, run="r2"), boot="boot-2")
    assert watched.look(69.0, running(NEW, run="r2"), boot="boot-2") is None
    event = watched.look(70.0, running(NEW, run="r2"), boot="boot-2")
    assert event is not None
    assert event.action == "commit"


def test_the_next_agent_goes_on_where_the_last_one_was_killed() -> None:
    watched = Watched()
    watched.look(0.0, running(NEW))
    watched.known = trial.resumed(watched.known, Moment(30.0, BOOT, 1, lambda: 0.5))
    # Its probes begin anew: until they have found out, a run that was well is well.
    assert watched.look(30.0, running(NEW, health="starting")) is None
    event = watched.look(60.0, running(NEW))
    assert event is not None
    assert event.action == "commit"

    starting = Watched()
    starting.look(0.0, running(NEW, health="starting"))
    starting.known = trial.resumed(starting.known, Moment(9000.0, BOOT, 1, lambda: 0.5))
    assert starting.look(9000.0, running(NEW, health="starting")) is None, "nobody watched it for hours"


def test_while_nobody_can_see_it_no_time_runs() -> None:
    watched = Watched()
    watched.look(0.0, running(NEW, health="starting"))
    watched.known = trial.unseen(watched.known)
    assert watched.look(5000.0, running(NEW, health="starting")) is not None
    assert [event.action for event in watched.events] == ["trial", "trial"]
    assert watched.runs == ["new"]


def test_a_module_that_does_its_work_and_ends_is_committed() -> None:
    asked = wanted(command=["new"], restart_policy="on-failure")
    watched = Watched(asked=asked)
    watched.look(0.0, running(asked))
    event = watched.look(3.0, exited(asked, exit_code=0))
    assert event is not None
    assert event.action == "commit"


def test_an_end_that_its_policy_leaves_goes_back_even_below_the_bound() -> None:
    asked = wanted(command=["new"], restart_policy="never", update=UpdatePolicy(max_failures=5))
    watched = Watched(asked=asked)
    watched.look(0.0, running(asked))
    event = watched.look(3.0, exited(asked, exit_code=2))
    assert event is not None
    assert "policy never leaves it down" in event.reason


def test_a_version_without_a_way_back_replaces_the_kept_one_only_when_it_was_well() -> None:
    asked = wanted(command=["new"], update=UpdatePolicy(rollback=False))
    watched = Watched(asked=asked)
    watched.look(0.0, running(asked))
    watched.look(1.0, exited(asked))
    assert watched.runs == ["new"]
    assert watched.known.good == GOOD.good
    watched.look(2.0, running(asked, run="r2"))
    watched.look(62.0, running(asked, run="r2"))
    assert watched.known == Versions(good=DesiredModule(spec=asked.spec))


def test_a_first_version_that_is_replaced_early_is_a_way_back_when_nothing_spoke_against_it() -> None:
    for crashed in (False, True):
        watched = Watched(Versions(), OLD)
        watched.look(0.0, running(OLD))
        if crashed:
            watched.look(1.0, exited(OLD))
            watched.look(2.0, running(OLD, run="r2"))
        watched.asked = NEW
        watched.look(3.0, running(OLD))
        assert (watched.known.good is None) == crashed


def test_wanted_stopped_no_decision_is_taken() -> None:
    watched = Watched()
    watched.look(0.0, running(NEW))
    watched.asked = wanted(command=["new"], update=UPDATE, status="stopped")
    ended_by_us = History(ordered_stop="stopped", ordered_run="r1")
    for now_s in (1.0, 500.0):
        assert watched.look(now_s, exited(NEW, exit_code=143), past=ended_by_us) is None
    assert trial.deadline_s(watched.known, watched.asked) is None
    watched.asked = NEW
    watched.look(1000.0, running(NEW, run="r2"))
    assert [event.action for event in watched.events] == ["trial", "trial"]


def test_the_version_to_go_back_to_keeps_its_image_on_the_device() -> None:
    old, new = wanted(image=pin("a"), command=[]), wanted(image=pin("b"), command=[])
    known = {"m": Versions(good=DesiredModule(spec=old.spec, image=old.image))}
    assert trial.images_kept({"m": new}, known) == {pin("a").digest, pin("b").digest}


# --- kept on the disk ------------------------------------------------------------------------------------------------


def test_what_is_known_is_on_the_disk_before_it_is_told(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    asked = {"m": NEW}

    def look(now_s: float, seen: Seen) -> Circumstances:
        return Circumstances({"m": seen}, {}, Moment(now_s, BOOT, 1, lambda: 0.5))

    told: list[str] = []
    decisions = DecisionLog(store.decisions, SystemClock())
    way_back = WayBack(store, decisions, Metrics())
    decisions.on_new = lambda: told.append(WayBack(store, decisions, Metrics()).targets(asked)["m"].spec.command[0])
    way_back.advance({"m": OLD}, look(0.0, running(OLD)))
    way_back.advance({"m": OLD}, look(60.0, running(OLD)))
    way_back.advance(asked, look(61.0, running(NEW, run="r2")))
    assert way_back.images(asked) == set()
    assert way_back.advance(asked, look(62.0, exited(NEW, run="r2"))) == {"m"}
    assert told == ["new", "old"]
    assert way_back.targets(asked)["m"].fingerprint == OLD.fingerprint
    # The next agent knows it as well, until an operator says otherwise.
    following = WayBack(store, decisions, Metrics())
    assert following.targets(asked)["m"].fingerprint == OLD.fingerprint
    assert following.try_again("m") == NEW.fingerprint
    assert following.targets(asked)["m"].fingerprint == NEW.fingerprint
    assert following.try_again("m") is None


def test_time_that_has_passed_wakes_nobody_again_and_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    way_back = WayBack(store, DecisionLog(store.decisions, SystemClock()), Metrics())
    moment = Moment(0.0, BOOT, 1, lambda: 0.5)
    way_back.advance({"m": OLD}, Circumstances({"m": running(OLD)}, {}, moment))
    assert way_back.deadline_s({"m": OLD}, 1.0) == 60.0
    assert way_back.deadline_s({"m": OLD}, 60.0) is None
