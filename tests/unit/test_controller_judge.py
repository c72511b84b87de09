"""What people read about a deployment, and when an activity that waits for it ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from registry.controller.balancer.direct import MISSING
from registry.controller.balancer.port import Routed
from registry.controller.services.judge import judge, outcome
from registry.controller.services.situation import Replica, Situation, UnpackedImage
from registry.store.services import DeployTask
from tests.service_builders import NOW, deployment, digest, pin, replica, situation

WELL = Routed(settled=True)
BLUE = deployment(replicas=2)
PAIR = [replica(BLUE, id="r1"), replica(BLUE, id="r2", slot=1)]


def state(found: Situation, routed: Routed = WELL) -> tuple[str, str]:
    progress = judge(found.deployments[0], found, routed)
    return progress.state, progress.reason


def with_tail(one: Replica, tail: str) -> Replica:
    from dataclasses import replace

    return replace(one, tail=tail)


def test_ready_means_all_replicas_and_routed() -> None:
    assert state(situation([BLUE], PAIR)) == ("ready", "")
    assert state(situation([BLUE], PAIR[:1])) == ("starting", "1 of 2 replicas are ready")
    assert state(situation([BLUE], PAIR), Routed()) == ("starting", "the balancer is being told")
    assert state(situation([BLUE], PAIR), Routed(problem="Port 8090 is taken")) == ("degraded", "Port 8090 is taken")
    assert state(situation([BLUE], PAIR), Routed(settled=True, note=MISSING)) == ("ready", MISSING)


def test_what_was_ready_does_not_flicker_while_the_balancer_is_told_something() -> None:
    ready = deployment(replicas=2, state="ready")
    assert state(situation([ready], PAIR), Routed())[0] == "ready"


def test_no_replicas_as_asked_is_ready() -> None:
    assert state(situation([deployment(replicas=0)]))[0] == "ready"


def test_an_image_on_its_way_and_one_that_will_not_come() -> None:
    assert state(situation([BLUE], images={digest("a"): UnpackedImage("unpacking")})) == (
        "starting",
        "its image is being unpacked",
    )
    failed = {digest("a"): UnpackedImage("missing", "the disk is full", NOW)}
    assert state(situation([BLUE], images=failed)) == ("failed", "the disk is full")
    new = deployment(replicas=2, image=pin("b"), revision=2)
    failed = {digest("a"): UnpackedImage("here"), digest("b"): UnpackedImage("missing", "the disk is full", NOW)}
    assert state(situation([new], PAIR, images=failed)) == ("degraded", "the disk is full")


def test_a_crash_degrades_a_hopeless_start_fails() -> None:
    crashed = replica(BLUE, "ended", id="r2", slot=1, was_ready=True)
    assert state(situation([BLUE], [PAIR[0], crashed])) == ("degraded", "1 of 2 replicas are ready; blue-r2: exit code 3")
    never = with_tail(replica(BLUE, "ended", id="r2", failures=1), "model.onnx is no model")
    found, reason = state(situation([BLUE], [never]))
    assert found == "failed"
    assert reason.endswith("blue-r2: exit code 3; its log ends: model.onnx is no model")
    again = replica(BLUE, "starting", id="r2", failures=2, last_failure="exit code 3")
    assert state(situation([BLUE], [again]))[1].endswith("exit code 3")


def test_an_old_image_that_serves_makes_a_failed_update_degraded() -> None:
    new = deployment(replicas=1, image=pin("b"), revision=2)
    never = replica(new, "ended", id="new", slot=1, failures=3)
    assert state(situation([new], [PAIR[0], never]))[0] == "degraded"


def test_replicas_are_shown_as_they_are() -> None:
    drained = replica(BLUE, id="r3", slot=2, phase="drain")
    ended = replica(BLUE, "ended", id="r4", slot=3, restarts=7)
    shown = judge(BLUE, situation([BLUE], [ended, drained, *PAIR]), WELL).replicas
    assert [(one.name, one.state, one.restarts) for one in shown] == [
        ("blue-r1", "ready", 0),
        ("blue-r2", "ready", 0),
        ("blue-r3", "draining", 0),
        ("blue-r4", "backoff", 7),
    ]
    assert shown[0].address == "http://127.0.0.1:40000"
    assert shown[3].reason == "exit code 3"


# --- activities --------------------------------------------------------------------------------------------------------

TASK = DeployTask(endpoint="churn", deployment="blue", revision=1)


def end(found: Situation, *, routed: Routed = WELL, waited_s: float = 1.0, task: DeployTask = TASK) -> tuple[str, str] | None:
    """State of the activity and the message of its problem; None while it goes on."""
    one = found.deployments[0] if found.deployments else None
    progress = judge(one, found, routed) if one else None
    since = NOW - timedelta(seconds=waited_s)
    ended = outcome(task, one, progress, waiting_since=since, situation=found, routed=routed)
    return None if ended is None else (ended.state, ended.problem.message if ended.problem else "")


def test_a_deployment_that_is_ready_succeeds() -> None:
    assert end(situation([BLUE], PAIR)) == ("succeeded", "")


def test_one_that_starts_goes_on() -> None:
    assert end(situation([BLUE], [replica(BLUE, "starting")])) is None
    assert end(situation([BLUE], [replica(BLUE, "ended")])) is None, "one accident is none"
    assert end(situation([BLUE], PAIR), routed=Routed(problem="it reloads")) is None


@pytest.mark.parametrize(
    ("found", "routed", "says"),
    [
        (situation([BLUE], [replica(BLUE, "ended", failures=1)]), WELL, "exit code 3"),
        (situation([BLUE], [replica(BLUE, "starting", gave_up=True, last_failure="no answer")]), WELL, "no answer"),
        (situation([BLUE], PAIR), Routed(problem="Port 8090 is taken", lasting=True), "Port 8090 is taken"),
        (situation([BLUE], single_replica="no balancer"), WELL, "2 replicas of an endpoint cannot be run: no balancer"),
        (situation([BLUE], images={digest("a"): UnpackedImage("missing", "disk full", NOW)}), WELL, "disk full"),
        (situation([]), WELL, "was deleted"),
        (situation([deployment(state="deleting")]), WELL, "was deleted"),
        (situation([deployment(revision=2)]), WELL, "A later deployment"),
    ],
    ids=["crashes", "never answers", "port taken", "no balancer", "no image", "gone", "going", "superseded"],
)
def test_what_cannot_succeed_fails_with_the_reason(found: Situation, routed: Routed, says: str) -> None:
    ended = end(found, routed=routed)
    assert ended is not None
    assert ended[0] == "failed"
    assert says in ended[1]


def test_the_log_goes_with_the_failure() -> None:
    never = with_tail(replica(BLUE, "ended", failures=1), "line 1\nline 2")
    found = situation([BLUE], [never])
    ended = outcome(TASK, BLUE, judge(BLUE, found, WELL), waiting_since=NOW, situation=found, routed=WELL)
    assert ended is not None
    assert ended.problem is not None
    assert ended.problem.details == {"log": "line 1\nline 2"}


def test_nobody_waits_for_ever() -> None:
    crashing: dict[str, Any] = {"was_ready": True, "failures": 5}
    found = situation([BLUE], [PAIR[0], replica(BLUE, "ended", id="r2", slot=1, **crashing)])
    assert end(found, waited_s=80) is None
    assert (end(found, waited_s=100) or ("",))[0] == "failed"
