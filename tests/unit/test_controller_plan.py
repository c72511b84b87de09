"""The service planner: single decisions, and random worlds in which it must come to rest at what is wanted."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.controller.services.plan import DRAIN_S, HEALTHY_AFTER_S, RESTARTS, STOP_GRACE_S, UNPACK_AGAIN_S, plan
from registry.controller.services.situation import UnpackedImage, fingerprint
from registry.controller.services.steps import (
    Drain,
    DropImage,
    Forget,
    GiveUp,
    Kill,
    NoteReady,
    RemoveDeployment,
    StartAgain,
    StartReplica,
    Stop,
    UnpackImage,
    Wait,
)
from tests.service_builders import NOW, World, deployment, digest, pin, replica, situation, steps_of

BLUE = deployment(replicas=1)


# --- single decisions ------------------------------------------------------------------------------------------------


def test_missing_replicas_are_started_in_free_slots() -> None:
    two = deployment(replicas=3)
    found = steps_of(situation([two], [replica(two, slot=1)]))
    assert found == [StartReplica(two, fingerprint(two), 0), StartReplica(two, fingerprint(two), 2)]


def test_at_the_goal_there_is_nothing_to_do() -> None:
    assert plan(situation([BLUE], [replica(BLUE)])) == []


def test_an_image_is_unpacked_before_the_first_start_and_only_once() -> None:
    assert steps_of(situation([BLUE], images={})) == [UnpackImage(digest("a"))]
    assert plan(situation([BLUE], images={digest("a"): UnpackedImage("unpacking")})) == []


def test_an_image_that_could_not_be_unpacked_is_tried_again_later() -> None:
    failed = {digest("a"): UnpackedImage("missing", "the disk is full", NOW - timedelta(seconds=UNPACK_AGAIN_S - 1))}
    (step,) = plan(situation([BLUE], images=failed))
    assert isinstance(step, Wait)
    assert "the disk is full" in step.reason
    later = NOW + timedelta(seconds=2)
    assert steps_of(situation([BLUE], images=failed, now=later)) == [UnpackImage(digest("a"))]


def test_an_image_that_nothing_uses_is_dropped() -> None:
    images = {digest("a"): UnpackedImage("here"), digest("b"): UnpackedImage("here")}
    assert steps_of(situation([BLUE], [replica(BLUE)], images=images)) == [DropImage(digest("b"))]


def test_what_starts_has_its_time_and_then_is_given_up() -> None:
    (step,) = plan(situation([BLUE], [replica(BLUE, "starting", age_s=59)]))
    assert step == Wait(NOW + timedelta(seconds=1), "blue-r1 is starting")
    (step,) = plan(situation([BLUE], [replica(BLUE, "starting", age_s=60)]))
    assert step == GiveUp("r1", "it did not answer within 60 s")


def test_the_first_answer_is_noted_once() -> None:
    assert plan(situation([BLUE], [replica(BLUE, ready_at=None)])) == [NoteReady("r1")]


def test_a_crash_is_answered_at_once_and_then_after_growing_pauses_for_ever() -> None:
    assert plan(situation([BLUE], [replica(BLUE, "ended")])) == [StartAgain("r1", 1, "exit code 3")]
    for failures in (1, 2, 5, 500):
        pause_s = RESTARTS.delay_s(failures, lambda: 0.5)
        (step,) = plan(situation([BLUE], [replica(BLUE, "ended", age_s=pause_s - 0.1, failures=failures)]))
        assert isinstance(step, Wait)
        (step,) = plan(situation([BLUE], [replica(BLUE, "ended", age_s=pause_s, failures=failures)]))
        assert step == StartAgain("r1", failures + 1, "exit code 3")
    assert pause_s <= RESTARTS.cap_s * (1 + RESTARTS.jitter)


def test_good_work_forgets_earlier_failures() -> None:
    worked = NOW - timedelta(seconds=HEALTHY_AFTER_S)
    (step,) = plan(situation([BLUE], [replica(BLUE, "ended", failures=9, ready_at=worked)]))
    assert step == StartAgain("r1", 1, "exit code 3")
    hardly = NOW - timedelta(seconds=HEALTHY_AFTER_S - 1)
    (step,) = plan(situation([BLUE], [replica(BLUE, "ended", failures=9, ready_at=hardly)]))
    assert isinstance(step, Wait)


def test_the_reason_of_a_given_up_replica_is_why_it_was_ended() -> None:
    (step,) = plan(situation([BLUE], [replica(BLUE, "ended", blame="it did not answer within 60 s")]))
    assert step == StartAgain("r1", 1, "it did not answer within 60 s")


def test_no_more_replicas_boot_at_once_than_the_machine_bears() -> None:
    many = deployment(replicas=6)
    assert len(steps_of(situation([many], starting_at_once=2))) == 2
    booting = [replica(many, "starting", id=f"r{n}", slot=n) for n in range(2)]
    assert steps_of(situation([many], booting, starting_at_once=2)) == []
    lost = [replica(many, "ended", id=f"r{n}", slot=n) for n in range(6)]
    assert len(steps_of(situation([many], lost, starting_at_once=2))) == 2


def test_scaling_down_lets_the_least_useful_go() -> None:
    one = deployment(replicas=1)
    seen = [
        replica(one, "starting", id="young", slot=0),
        replica(one, id="good", slot=1),
        replica(one, "ended", id="dead", slot=2),
    ]
    assert steps_of(situation([one], seen)) == [Stop("young"), Forget("dead")]


def test_leaving_goes_by_drain_stop_kill_forget() -> None:
    none = deployment(replicas=0)
    assert steps_of(situation([none], [replica(none)])) == [Drain("r1")]
    assert steps_of(situation([none], [replica(none, phase="drain", age_s=DRAIN_S - 0.1)])) == []
    assert steps_of(situation([none], [replica(none, phase="drain", age_s=DRAIN_S)])) == [Stop("r1")]
    patience_s = STOP_GRACE_S + none.settings.scoring_timeout_ms / 1000
    assert steps_of(situation([none], [replica(none, phase="stop", age_s=patience_s - 0.1)])) == []
    assert steps_of(situation([none], [replica(none, phase="stop", age_s=patience_s)])) == [Kill("r1")]
    assert steps_of(situation([none], [replica(none, "ended", phase="stop")])) == [Forget("r1")]


def test_an_old_image_serves_until_the_new_one_is_ready() -> None:
    new = deployment(image=pin("b", 2), revision=2)
    old = replica(BLUE, id="old")
    assert steps_of(situation([new], [old])) == [StartReplica(new, fingerprint(new), 1)]
    starting = replica(new, "starting", id="new", slot=1)
    assert steps_of(situation([new], [old, starting])) == []
    assert steps_of(situation([new], [old, replica(new, id="new", slot=1)])) == [Drain("old")]


def test_nobody_leaves_while_the_balancer_lags_behind() -> None:
    new = deployment(image=pin("b", 2), revision=2)
    seen = [replica(BLUE, id="old"), replica(new, id="new", slot=1)]
    assert steps_of(situation([new], seen, routing_is_stale=True)) == []
    drained = [replica(BLUE, id="old", phase="drain", age_s=DRAIN_S), seen[1]]
    assert steps_of(situation([new], drained, routing_is_stale=True)) == []
    assert steps_of(situation([new], drained)) == [Stop("old")]


def test_an_old_replica_that_crashes_is_started_again_while_it_is_needed() -> None:
    new = deployment(image=pin("b", 2), revision=2)
    old, failing = replica(BLUE, "ended", id="old", was_ready=True), replica(new, "starting", id="new", slot=1)
    assert steps_of(situation([new], [old, failing])) == [StartAgain("old", 1, "exit code 3")]


def test_an_old_replica_that_never_served_goes_at_once() -> None:
    newest = deployment(image=pin("c", 3), revision=3)
    never = replica(deployment(image=pin("b", 2)), "ended", id="never", slot=1)
    assert Forget("never") in steps_of(situation([newest], [replica(BLUE, id="good"), never]))


def test_a_change_of_settings_replaces_a_change_of_number_does_not() -> None:
    assert fingerprint(deployment(replicas=5)) == fingerprint(deployment(replicas=1))
    assert fingerprint(deployment(max_concurrent_requests=2)) != fingerprint(deployment())
    assert fingerprint(deployment(image=pin("b"))) != fingerprint(deployment())


def test_a_deleted_deployment_goes_with_its_last_replica() -> None:
    going = deployment(state="deleting")
    assert steps_of(situation([going], [replica(BLUE)])) == [Drain("r1")]
    assert steps_of(situation([going], images={})) == [RemoveDeployment(going)]


def test_replicas_of_nothing_leave() -> None:
    assert steps_of(situation([], [replica(BLUE)])) == [Drain("r1")]


@pytest.mark.parametrize(("replicas", "names"), [(2, ["blue"]), (1, ["blue", "green"])])
def test_without_a_balancer_one_replica_of_one_deployment_is_all(replicas: int, names: list[str]) -> None:
    wanted = [
        msgspec.structs.replace(deployment(name, replicas=replicas), created_at=NOW + timedelta(seconds=n))
        for n, name in enumerate(names)
    ]
    started = [step for step in steps_of(situation(wanted, single_replica="no balancer")) if isinstance(step, StartReplica)]
    allowed = [] if replicas > 1 else ["blue"]
    assert [step.deployment.name for step in started] == allowed


def test_without_a_balancer_what_serves_is_not_harmed_by_a_wish_for_more() -> None:
    more = deployment(replicas=3, image=pin("b"), revision=2)
    assert steps_of(situation([more], [replica(BLUE)], single_replica="no balancer")) == []


# --- random worlds ---------------------------------------------------------------------------------------------------

COUNTS = st.integers(0, 4)
LETTERS = st.sampled_from("abc")


@given(st.lists(st.tuples(COUNTS, LETTERS), min_size=1, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_happened_the_world_comes_to_rest_at_what_is_wanted(changes: list[tuple[int, str]], data: st.DataObject) -> None:
    world = World()
    for revision, (count, letter) in enumerate(changes, start=1):
        world.deployments["blue"] = deployment(replicas=count, image=pin(letter), revision=revision)
        for _ in range(data.draw(st.integers(0, 3))):
            world.turn()
            _no_slot_is_shared(world)
            if data.draw(st.booleans()) and world.replicas:
                world.crash(data.draw(st.sampled_from(sorted(world.replicas))))
    world.settle()
    count, letter = changes[-1]
    assert len(world.replicas) == count
    assert all(one.serves and one.record.image.digest == digest(letter) for one in world.replicas.values())
    assert all(isinstance(step, Wait) for step in world.turn())
    del world.deployments["blue"]
    world.settle()
    assert (world.replicas, world.images) == ({}, {})


@given(st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_a_rolling_update_never_serves_with_fewer_than_both_want(before: int, after: int) -> None:
    world = World(deployments={"blue": deployment(replicas=before)})
    world.settle()
    world.deployments["blue"] = deployment(replicas=after, image=pin("b"), revision=2)
    while any(one.record.image.digest == digest("a") for one in world.replicas.values()):
        world.turn()
        assert len(world.serving("blue")) >= min(before, after)
        _no_slot_is_shared(world)


def test_an_image_that_never_gets_ready_harms_nobody_and_is_tried_for_ever() -> None:
    world = World(deployments={"blue": deployment(replicas=2)}, broken=frozenset({digest("b")}))
    world.settle()
    world.deployments["blue"] = deployment(replicas=2, image=pin("b"), revision=2)
    tries = 0
    for _ in range(300):
        tries += sum(isinstance(step, StartAgain) for step in world.turn(10.0))
        assert len([one for one in world.serving("blue") if one.record.image.digest == digest("a")]) == 2
    assert tries > 50, "after all pauses it is still tried"
    world.broken = frozenset()
    for _ in range(20):
        world.turn(10.0)
    assert {one.record.image.digest for one in world.replicas.values()} == {digest("b")}


def _no_slot_is_shared(world: World) -> None:
    slots = [(one.key, one.record.slot) for one in world.replicas.values()]
    assert len(set(slots)) == len(slots)
