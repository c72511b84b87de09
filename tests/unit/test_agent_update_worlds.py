"""Updates in random worlds: whatever ends, fails, is killed or loses its power, one version is kept and runs in the end."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.reconcile import trial
from edge_agent.reconcile.plan import plan
from edge_agent.reconcile.situation import Exited, Running, Seen, Wanted, fingerprint
from edge_agent.reconcile.steps import Start, Step, Wait
from hedgerow.contracts.edge import UpdatePolicy
from tests.agent_builders import pin, wanted
from tests.agent_worlds import NAMES, POLICIES, World, ended

# What a version does once it was started. Only the first two are well.
BEHAVIOURS = ("one", "two", "crash", "sick", "slow", "refused")


@st.composite
def versions_of(draw: st.DrawFn, name: str) -> Wanted:
    return wanted(
        name,
        kind=draw(st.sampled_from(("process", "docker"))),
        image=draw(st.sampled_from((None, None, pin("a"), pin("b")))),
        status=draw(st.sampled_from(("running", "running", "running", "stopped"))),
        restart_policy=draw(st.sampled_from(POLICIES)),
        startup_order=draw(st.integers(0, 2)),
        command=[draw(st.sampled_from(BEHAVIOURS))],
        update=UpdatePolicy(
            rollback=draw(st.sampled_from((True, True, True, False))),
            max_failures=draw(st.integers(0, 2)),
            commit_after_s=draw(st.sampled_from((5.0, 60.0))),
            ready_within_s=draw(st.sampled_from((10.0, 120.0))),
        ),
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[dict[str, Wanted]], frozenset[str]]:
    """Desired states that come one after the other, and images whose proof fails."""
    names = NAMES[: draw(st.integers(1, 3))]
    states = [{name: draw(versions_of(name)) for name in names} for _ in range(draw(st.integers(1, 4)))]
    return states, frozenset(draw(st.lists(st.sampled_from((pin("a").digest, pin("b").digest)), max_size=1)))


def behave(world: World) -> None:
    """What the modules themselves do between two looks."""
    for place, module in list(world.here.items()):
        if not isinstance(module, Running) or module.name in world.busy:
            continue
        match _command(world, module):
            case "one" | "two":
                world.here[place] = replace(module, health="ready", detail="")
            case "crash":
                world.here[place] = ended(module, 1)
            case "sick":
                world.here[place] = replace(module, health="unhealthy", detail="GET / answered 500")
            case _:
                pass


def _command(world: World, module: Running) -> str:
    """Which version a run is of: the fingerprint says it."""
    return world.behaviours.get(module.fingerprint, "one")


def step(world: World, chance: random.Random, share: float) -> list[Step]:
    now = world.look()
    steps = plan(now)
    assert len([s.module for s in steps]) == len({s.module for s in steps}), "two steps for one module"
    for name, module in (now.wanted or {}).items():
        if module.spec.status == "running" and not _runs(now.seen.get(name), module):
            known = [s for s in steps if s.module == name]
            assert known or isinstance(now.seen.get(name), Exited), f"{name} does not run, and nothing is done about it"
            assert all(s.reason for s in known)
    world.begin(steps)
    for name in [n for n in sorted(world.busy) if chance.random() < share]:
        begun = world.busy[name]
        refused = isinstance(begun, Start) and begun.wanted.spec.command == ["refused"]
        world.finish(name, fails=refused, own_fault=refused)
    if chance.random() < share:
        world.arrive()
    behave(world)
    return steps


def _runs(seen: Seen | None, module: Wanted) -> bool:
    return isinstance(seen, Running) and seen.fingerprint == module.fingerprint


def deploy(world: World, state: dict[str, Wanted]) -> None:
    world.wanted = state
    world.version += 1
    world.behaviours.update({module.fingerprint: module.spec.command[0] for module in state.values()})
    world.history = {name: past for name, past in world.history.items() if name in state}


@given(histories(), st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_in_the_end_a_version_is_kept_or_the_one_before_runs(
    drawn: tuple[list[dict[str, Wanted]], frozenset[str]], seed: int
) -> None:
    states, bad_proofs = drawn
    chance = random.Random(seed)
    world = World({}, {}, pulled=set(), bad_proofs=bad_proofs)
    for state in states:
        deploy(world, state)
        for _ in range(chance.randrange(25)):
            step(world, chance, 0.6)
            world.now_s += chance.choice((0.0, 0.5, 5.0, 61.0))
            if chance.random() < 0.08:
                world.crash_agent(chance)
            elif chance.random() < 0.04:
                world.reboot(chance)
    for _ in range(120):
        steps = step(world, chance, 1.0)
        due = [s.until_s for s in steps if isinstance(s, Wait) and s.until_s is not None]
        deadline_s = world.deadline_s()
        if not steps and deadline_s is None and not world.busy:
            break
        world.now_s = max([world.now_s + 0.5, *due, *([deadline_s] if deadline_s is not None else [])])
    for name, asked in world.wanted.items():
        _check_end(world, name, asked)


def _check_end(world: World, name: str, asked: Wanted) -> None:
    known = world.of(name)
    aim = trial.target(asked, known)
    seen = world.here.get((aim.spec.kind, name))
    if asked.spec.status == "stopped":
        assert not isinstance(seen, Running)
        return
    if trial.has_way_back(asked, known):
        # Only a power cut under a policy that leaves it down can keep it from being decided.
        assert isinstance(seen, Exited), f"{name} is on trial for ever"
        assert world.boots > 1
    if known.refused is not None:
        assert known.good is not None
        assert aim.fingerprint == fingerprint(known.good)
        assert aim.fingerprint != asked.fingerprint
        assert asked.spec.update.rollback
        # It was good; so it runs, unless its policy left it down after a power cut.
        assert _runs(seen, aim) or (isinstance(seen, Exited) and seen.exit_code is None), f"{name} has no version that runs"
        assert asked.spec.command[0] not in ("one", "two") or world.boots > 1 or bool(world.bad_proofs)


@given(histories(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_a_version_that_is_well_is_never_taken_back_however_often_the_agent_is_killed(
    drawn: tuple[list[dict[str, Wanted]], frozenset[str]], seed: int
) -> None:
    states, _ = drawn
    chance = random.Random(seed)
    world = World({}, {}, pulled=set())
    for state in states:
        deploy(world, {n: w for n, w in state.items() if w.spec.command[0] in ("one", "two")})
        for _ in range(25):
            step(world, chance, 0.6)
            world.now_s += chance.choice((0.0, 0.5, 4.0))
            if chance.random() < 0.2:
                world.crash_agent(chance)
    assert {event.action for _, event in world.events} <= {"trial", "commit"}
