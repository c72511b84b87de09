"""The planner in random worlds: it converges, is quiet at the goal, never starts a module twice, and ignores input order."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.reconcile.module_state import AFTER_CRASH
from edge_agent.reconcile.plan import READY_PATIENCE_S, plan, startup_order
from edge_agent.reconcile.restart_policy import ordered
from edge_agent.reconcile.situation import History, ImageState, Running, Seen, Situation, StopCause, Wanted
from edge_agent.reconcile.steps import Pull, Remove, Start, Stop, Wait
from tests.agent_builders import BOOT, exited, pin, running, wanted
from tests.agent_worlds import POLICIES, World, ended, worlds


def situation(modules: list[Wanted], seen: list[Seen] | None = None, **fields: Any) -> Situation:
    values: dict[str, Any] = {"now_s": 1000.0, "boot_id": BOOT} | fields
    return Situation(wanted={m.name: m for m in modules}, seen={s.name: s for s in seen or []}, **values)


def past(**fields: Any) -> History:
    return History(boot_id=BOOT, **fields)


# --- single decisions ------------------------------------------------------------------------------------------------


def test_nothing_is_touched_before_a_desired_state_was_accepted() -> None:
    stray = running(wanted("old"))
    assert plan(Situation(wanted=None, seen={}, strays=(stray,), now_s=0.0, boot_id=BOOT)) == []


def test_an_absent_module_is_started() -> None:
    module = wanted()
    assert plan(situation([module])) == [Start("m", module, "it is wanted running")]


def test_what_runs_as_wanted_gets_no_step() -> None:
    module = wanted()
    assert plan(situation([module], [running(module)])) == []


def test_what_is_not_wanted_is_stopped_then_removed_with_its_files() -> None:
    old = wanted("old")
    assert plan(situation([], strays=(running(old),))) == [
        Stop("old", "process", "r1", 10.0, "removed", "it is not in the desired state")
    ]
    assert plan(situation([], strays=(exited(old),))) == [Remove("old", "process", True, "it is not in the desired state")]


def test_a_module_of_another_kind_goes_before_its_successor_starts() -> None:
    new = wanted(kind="docker")
    steps = plan(situation([new], strays=(replace(running(wanted()), kind="process"),)))
    assert [type(step) for step in steps] == [Stop]


def test_an_image_is_pulled_before_the_start_and_before_the_previous_version_is_stopped() -> None:
    old, new = wanted(image=pin("a")), wanted(image=pin("b"))
    assert [type(step) for step in plan(situation([new]))] == [Pull]
    assert [type(step) for step in plan(situation([new], [running(old)]))] == [Pull]
    being_pulled = {new.image.digest: ImageState(ready=False)} if new.image else {}
    (step,) = plan(situation([new], [running(old)], images=being_pulled))
    assert isinstance(step, Wait)
    here = {new.image.digest: ImageState(ready=True)} if new.image else {}
    (step,) = plan(situation([new], [running(old)], images=here))
    assert isinstance(step, Stop)
    assert step.cause == "replaced"


def test_nothing_that_works_is_replaced_while_another_image_is_still_on_its_way() -> None:
    first_old, first = wanted("a", command=["old"]), wanted("a", command=["new"])
    second = wanted("b", image=pin("b"))
    steps = plan(situation([first, second], [running(first_old)], images={pin("b").digest: ImageState(ready=False)}))
    assert [type(step) for step in steps] == [Wait, Wait]


def test_a_crash_is_answered_whatever_is_being_pulled() -> None:
    crashed, pulling = wanted("a"), wanted("b", image=pin("b"), startup_order=0)
    history = {"a": past(failures=1, retry_at_s=1000.0, counted_run="r1")}
    steps = plan(situation([crashed, pulling], [exited(crashed)], history=history))
    assert [type(step) for step in steps if step.module == "a"] == [Start]


def test_a_busy_module_gets_nothing_but_a_wait() -> None:
    looks: list[list[Seen]] = [[], [running(wanted(command=["old"]))], [exited(wanted())]]
    for seen in looks:
        assert [type(s) for s in plan(situation([wanted()], seen, busy=frozenset({"m"})))] == [Wait]


def test_a_blind_engine_stops_plans_for_its_own_modules_only() -> None:
    container, process = wanted("c", kind="docker"), wanted("p")
    steps = plan(situation([container, process], blind={"docker": "it hangs"}))
    assert steps == [Wait("c", "it hangs"), Start("p", process, "it is wanted running")]


def test_wanted_stopped_is_stopped_and_stays_stopped() -> None:
    module = wanted(status="stopped")
    (step,) = plan(situation([module], [running(module)]))
    assert isinstance(step, Stop)
    assert step.cause == "stopped"
    assert plan(situation([module], [exited(module)])) == []
    assert plan(situation([module])) == []


def test_a_crashed_module_waits_for_its_delay_and_then_starts() -> None:
    module = wanted()
    history = {"m": past(failures=3, retry_at_s=1004.0, counted_run="r1")}
    (step,) = plan(situation([module], [exited(module)], history=history))
    assert isinstance(step, Wait)
    assert step.until_s == 1004.0
    assert "failure 3" in step.reason
    (step,) = plan(situation([module], [exited(module)], history=history, now_s=1004.0))
    assert isinstance(step, Start)


def test_a_monotonic_time_of_another_boot_means_nothing() -> None:
    module = wanted()
    history = {"m": History(boot_id="boot-0", failures=3, retry_at_s=9e9, counted_run="r1")}
    (step,) = plan(situation([module], [exited(module)], history=history))
    assert isinstance(step, Start)


def test_policies_answer_exits() -> None:
    restarted = {
        (policy, code): [type(s) for s in plan(situation([m], [exited(m, exit_code=code)]))] == [Start]
        for policy in POLICIES
        for code in (0, 1, None)
        for m in [wanted(restart_policy=policy)]
    }
    assert restarted == {
        ("never", 0): False,
        ("never", 1): False,
        ("never", None): False,
        ("on-failure", 0): False,
        ("on-failure", 1): True,
        ("on-failure", None): True,
        ("on-unhealthy", 0): False,
        ("on-unhealthy", 1): True,
        ("on-unhealthy", None): True,
        ("always", 0): True,
        ("always", 1): True,
        ("always", None): True,
    }


def test_policies_answer_unhealthiness() -> None:
    stopped = {}
    for policy in POLICIES:
        module = wanted(restart_policy=policy)
        steps = plan(situation([module], [running(module, health="unhealthy", detail="GET /health answered 500")]))
        stopped[policy] = [step.cause for step in steps if isinstance(step, Stop)]
    assert stopped == {"never": [], "on-failure": [], "on-unhealthy": ["unhealthy"], "always": ["unhealthy"]}


def test_a_stop_for_unhealthiness_is_carried_to_its_end_by_the_next_agent() -> None:
    module = wanted()
    history = {"m": ordered(past(problem="it hung"), "unhealthy", "r1")}
    (step,) = plan(situation([module], [running(module, health="starting")], history=history))
    assert isinstance(step, Stop)
    assert set(AFTER_CRASH) == {None, *StopCause.__args__}  # type: ignore[attr-defined]  # a Literal has its values there


def test_startup_order_waits_for_readiness_but_not_for_ever() -> None:
    first, second = wanted("a", startup_order=0), wanted("b", startup_order=1)
    steps = plan(situation([second, first]))
    assert [type(step) for step in steps] == [Start, Wait]
    starting = running(first, health="starting")
    history = {"a": past(run="r1", since_s=1000.0)}
    (step,) = plan(situation([first, second], [starting], history=history))
    assert isinstance(step, Wait)
    assert step.until_s == 1000.0 + READY_PATIENCE_S
    (step,) = plan(situation([first, second], [starting], history=history, now_s=1000.0 + READY_PATIENCE_S))
    assert isinstance(step, Start)
    (step,) = plan(situation([first, second], [running(first)], history=history))
    assert isinstance(step, Start)


def test_a_broken_first_module_does_not_hold_the_others() -> None:
    first, second = wanted("a", startup_order=0, image=pin("a")), wanted("b", startup_order=1)
    failing = {pin("a").digest: ImageState(ready=False, failures=1, detail="404")}
    assert [type(s) for s in plan(situation([first, second], images=failing))] == [Wait, Start]
    crashing = {"a": past(failures=2, retry_at_s=2000.0, counted_run="r1")}
    images = {pin("a").digest: ImageState(ready=True)}
    assert [type(s) for s in plan(situation([first, second], [exited(first)], history=crashing, images=images))] == [Wait, Start]


# --- random worlds ---------------------------------------------------------------------------------------------------


def settled(world: World) -> bool:
    """Every module is as wanted, or its policy leaves it ended."""
    for name, module in world.wanted.items():
        seen = world.here.get((module.spec.kind, name))
        if module.spec.status == "stopped":
            if isinstance(seen, Running):
                return False
        elif isinstance(seen, Running):
            if seen.fingerprint != module.fingerprint:
                return False
        elif seen is None or module.spec.restart_policy == "always":
            return False
    return all(name in world.wanted and world.wanted[name].spec.kind == kind for kind, name in world.here)


@given(worlds(), st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_it_converges_in_a_bounded_number_of_rounds(world: World, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        now = world.look()
        steps = plan(now)
        world.note_states(now, steps)
        if not steps:
            break
        world.begin(steps)
        # Actions end in any order, some not before a later round.
        for name in [n for n in sorted(world.busy) if chance.random() < 0.7]:
            world.finish(name)
        world.arrive()
        world.become_ready()
        world.now_s = max([world.now_s, *(s.until_s for s in steps if isinstance(s, Wait) and s.until_s is not None)])
    assert plan(world.look()) == []
    assert settled(world)


@given(worlds(), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_never_two_of_one_module_while_modules_crash_and_starts_fail(world: World, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        now = world.look()
        steps = plan(now)
        world.note_states(now, steps)
        assert len([s.module for s in steps]) == len({s.module for s in steps}), "two steps for one module"
        world.begin(steps)
        touched = [n for n in sorted(world.busy) if chance.random() < 0.5]
        for name in touched:
            world.finish(name, fails=chance.random() < 0.3)
        if chance.random() < 0.5:
            world.arrive()
        for place, module in list(world.here.items()):
            # One thing at most happens to a module between two looks; TRANSITIONS is about such.
            if module.name in touched or module.name in world.busy or not isinstance(module, Running):
                continue
            if chance.random() < 0.3:
                world.here[place] = ended(module, chance.choice((0, 1, 137)))
            elif chance.random() < 0.3:
                world.here[place] = replace(module, health=chance.choice(("ready", "unhealthy")), detail="probed")
        world.now_s += chance.choice((0.0, 0.5, 30.0))


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_the_order_of_the_inputs_does_not_matter(world: World, chance: random.Random) -> None:
    now = world.look()
    shuffled = replace(
        now,
        wanted=_shuffled(now.wanted or {}, chance),
        seen=_shuffled(now.seen, chance),
        history=_shuffled(now.history, chance),
        strays=tuple(chance.sample(now.strays, len(now.strays))),
    )
    assert plan(shuffled) == plan(now)


def test_order_is_by_startup_order_then_name() -> None:
    names = [m.name for m in startup_order({n: wanted(n, startup_order=o) for n, o in (("z", 0), ("a", 1), ("b", 0))})]
    assert names == ["b", "z", "a"]


def _shuffled(values: Mapping[str, Any], chance: random.Random) -> dict[str, Any]:
    items = list(values.items())
    chance.shuffle(items)
    return dict(items)
