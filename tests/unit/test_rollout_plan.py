"""The planner of rollouts: it always ends, a group never begins before the one in front of it is good, numbers add up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.rollout import Rollout, RolloutGroup, RolloutGroupStatus, RolloutPolicy
from hedgerow.contracts.status import DesiredOutcome
from registry.hub.errors import RolloutOver
from registry.hub.rollouts.outcomes import SeenModule, SeenReport, has_answered, health_of
from registry.hub.rollouts.plan import advance, judge, next_look, steer
from registry.hub.rollouts.sharing import Matched, rules_of, share_out

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
_PERCENT = st.floats(1, 100)
_GROUPS = st.builds(
    RolloutGroup,
    devices=st.integers(1, 6),
    success_percent=_PERCENT,
    error_percent=_PERCENT,
    timeout_s=st.sampled_from([60.0, 600.0]),
    soak_s=st.sampled_from([0.0, 30.0]),
)
_POLICIES = st.builds(
    RolloutPolicy, groups=st.lists(_GROUPS, min_size=1, max_size=4), on_error=st.sampled_from(["pause", "reverse"])
)
# What a device that was told does, at some time: the index picks the device.
_ANSWERS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["succeeded", "failed", "released"]), st.integers(0, 50)))


def fleet(number: int) -> list[Matched]:
    return [Matched(f"uuid-{one}", f"d{one}", {"line": str(one % 2)}) for one in range(number)]


class World:
    """A fleet that is told and answers; the planner in the middle."""

    def __init__(self, policy: RolloutPolicy, number: int) -> None:
        shares = share_out("line:2", policy, fleet(number))
        self.group_of = dict(shares.group_of)
        self.states = dict.fromkeys(self.group_of, "waiting")
        self.now = NOW
        self.rollout = Rollout(
            id="line:2",
            edge_deployment="line",
            revision=2,
            previous_revision=1,
            policy=policy,
            state="running",
            groups=list(shares.groups),
            created_at=NOW,
        )

    def numbers(self) -> list[RolloutGroupStatus]:
        found = []
        for number, group in enumerate(self.rollout.groups):
            states = [self.states[uuid] for uuid, of in self.group_of.items() if of == number]
            counts = {name: states.count(name) for name in ("released", "succeeded", "failed")}
            found.append(msgspec.structs.replace(group, devices=len(states), **counts))
        return found

    def go(self) -> None:
        before = self.rollout
        self.rollout, _ = advance(msgspec.structs.replace(before, groups=self.numbers()), self.now)
        self.check(before)
        for uuid, number in self.group_of.items():
            if self.rollout.groups[number].state != "waiting" and self.states[uuid] == "waiting":
                self.states[uuid] = "released"

    def check(self, before: Rollout) -> None:
        for number, group in enumerate(self.rollout.groups):
            front = self.rollout.groups[:number]
            if group.state != "waiting":
                assert all(one.state == "succeeded" for one in front), "a group began before the one in front of it was good"
            if group.state == "succeeded" and before.groups[number].state != "succeeded" and group.devices:
                rules = rules_of(self.rollout.policy, number)
                assert group.succeeded * 100 >= rules.success_percent * group.devices - 1e-6
                assert group.began_at is not None
                assert self.now >= group.began_at + timedelta(seconds=rules.soak_s)
            assert group.released + group.succeeded + group.failed <= group.devices
        if self.rollout.state == "succeeded":
            assert all(one.state == "succeeded" for one in self.rollout.groups)


@given(policy=_POLICIES, number=st.integers(0, 20), answers=_ANSWERS)
def test_it_ends_whatever_devices_say_and_when(
    policy: RolloutPolicy, number: int, answers: Sequence[tuple[int, str, int]]
) -> None:
    world = World(policy, number)
    world.go()
    for index, state, wait_s in answers:
        world.now += timedelta(seconds=wait_s)
        told = sorted(uuid for uuid, found in world.states.items() if found != "waiting")
        if told:
            world.states[told[index % len(told)]] = state
        world.go()
    # Nobody says anything any more: then only time decides.
    for _ in range(4 * len(world.rollout.groups) + 4):
        if (moment := next_look(msgspec.structs.replace(world.rollout, groups=world.numbers()))) is None:
            break
        world.now = max(world.now, moment)
        world.go()
    assert world.rollout.state == "succeeded" if not number else world.rollout.state != "running"
    assert (world.rollout.state == "reversing") <= (policy.on_error == "reverse")


@given(policy=_POLICIES, number=st.integers(0, 20))
def test_a_fleet_that_does_well_gets_it_whole(policy: RolloutPolicy, number: int) -> None:
    world = World(policy, number)
    for _ in range(4 * len(world.rollout.groups) + 4):
        world.go()
        world.states = {uuid: "waiting" if found == "waiting" else "succeeded" for uuid, found in world.states.items()}
        world.now += timedelta(seconds=30)
    assert world.rollout.state == "succeeded"
    assert set(world.states.values()) <= {"succeeded"}


@given(policy=_POLICIES, number=st.integers(0, 30), of=st.text(max_size=5))
def test_every_device_is_in_one_group_and_always_the_same(policy: RolloutPolicy, number: int, of: str) -> None:
    devices = fleet(number)
    shares = share_out(of, policy, devices)
    assert shares == share_out(of, policy, reversed(devices))
    assert sorted(shares.group_of) == sorted(device.uuid for device in devices)
    for index, group in enumerate(shares.groups):
        assert group.devices == list(shares.group_of.values()).count(index)
    assert len(shares.groups) in (len(policy.groups), len(policy.groups) + 1)


def test_a_share_is_of_what_is_left_and_one_device_at_least() -> None:
    policy = RolloutPolicy(groups=[RolloutGroup(percent=10), RolloutGroup(percent=50), RolloutGroup(percent=1)])
    assert [group.devices for group in share_out("a:1", policy, fleet(20)).groups] == [2, 9, 1, 8]
    assert [group.devices for group in share_out("a:1", policy, fleet(2)).groups] == [1, 1, 0]
    assert [group.devices for group in share_out("a:1", RolloutPolicy(groups=[RolloutGroup(percent=29)]), fleet(100)).groups] == [
        29,
        71,
    ]


def test_other_revisions_begin_elsewhere_and_early_ones_go_first() -> None:
    policy = RolloutPolicy(groups=[RolloutGroup(devices=3)])
    first = [
        {uuid for uuid, number in share_out(f"line:{n}", policy, fleet(60)).group_of.items() if number == 0} for n in range(5)
    ]
    assert len(set().union(*first)) > 8
    devices = [remade(device, early=device.name in ("d7", "d50")) for device in fleet(60)]
    chosen = {uuid for uuid, number in share_out("line:1", policy, devices).group_of.items() if number == 0}
    assert {"uuid-7", "uuid-50"} < chosen


def remade(device: Matched, *, early: bool) -> Matched:
    return Matched(device.uuid, device.name, device.tags, device.reported, early)


@pytest.mark.parametrize(
    ("group", "rules", "verdict"),
    [
        ({"devices": 0}, {}, "well"),
        ({"devices": 10, "succeeded": 9}, {}, "undecided"),
        ({"devices": 10, "succeeded": 9}, {"success_percent": 90}, "well"),
        ({"devices": 3, "succeeded": 2}, {"success_percent": 66.7}, "undecided"),
        ({"devices": 3, "succeeded": 2}, {"success_percent": 66.6}, "well"),
        ({"devices": 100, "failed": 9, "succeeded": 0}, {"success_percent": 90}, "undecided"),
        ({"devices": 100, "failed": 10, "succeeded": 90}, {"success_percent": 90}, "failed"),
        ({"devices": 100, "failed": 1}, {}, "failed"),
        ({"devices": 4, "began_at": NOW - timedelta(seconds=3600)}, {}, "failed"),
        ({"devices": 4, "began_at": NOW - timedelta(seconds=3599)}, {}, "undecided"),
        ({"devices": 4, "succeeded": 4, "began_at": NOW - timedelta(hours=9)}, {}, "well"),
    ],
)
def test_verdicts(group: dict[str, object], rules: dict[str, float], verdict: str) -> None:
    status = msgspec.structs.replace(RolloutGroupStatus(name="g", state="running"), **group)
    assert judge(status, msgspec.structs.replace(RolloutGroup(), **rules), NOW).what == verdict


def test_what_lay_still_begins_anew() -> None:
    world = World(RolloutPolicy(groups=[RolloutGroup(devices=2, timeout_s=60)]), 4)
    world.go()
    paused, happening = steer(world.rollout, "pause", "lunch", NOW)
    assert (paused.state, paused.reason, happening.kind) == ("paused", "lunch", "paused")
    assert advance(paused, NOW + timedelta(hours=1)) == (paused, [])
    resumed, _ = steer(paused, "resume", "", NOW + timedelta(hours=1))
    assert (resumed.state, resumed.groups[0].began_at) == ("running", NOW + timedelta(hours=1))
    for action in ("resume", "reverse"):
        with pytest.raises(RolloutOver):
            steer(msgspec.structs.replace(resumed, state="superseded"), action, "", NOW)


def report(version: int = 5, code: int = 200, **modules: SeenModule) -> SeenReport:
    return SeenReport(desired=DesiredOutcome(version=version, code=code, message="so"), modules=modules)


@pytest.mark.parametrize(
    ("said", "health"),
    [
        (None, "none"),
        (report(4), "none"),
        (report(5), "well"),
        (report(7), "well"),
        (report(8), "none"),
        (report(5, 202), "none"),
        (report(5, 412), "failed"),
        (report(5, 500), "troubled"),
        (report(m=SeenModule(state="running")), "well"),
        (report(m=SeenModule(state="stopped")), "well"),
        (report(m=SeenModule(state="running", trial=True)), "none"),
        (report(m=SeenModule(state="unhealthy")), "troubled"),
        (report(m=SeenModule(state="failed")), "troubled"),
        (report(5, 500, m=SeenModule(state="running", rolled_back_from="sha256:1", rollback_reason="slow")), "failed"),
    ],
)
def test_what_a_report_says_of_the_version_it_was_told(said: SeenReport | None, health: str) -> None:
    assert health_of(said, told=5, issued=7).what == health


def test_whoever_is_done_has_answered() -> None:
    assert has_answered(report(5, 500), 5, 7)
    assert not has_answered(report(5, 202), 5, 7)
    assert not has_answered(report(4), 5, 7)
    assert not has_answered(None, 5, 7)
