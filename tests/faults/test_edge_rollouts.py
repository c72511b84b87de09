"""A bad version on real devices: the device takes it back, the hub reverses the rollout, also one that was killed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec, UpdatePolicy
from hedgerow.contracts.rollout import OnError, Rollout, RolloutGroup, RolloutPolicy
from registry.store import edge_deployments, rollout_devices, rollouts
from tests.agent_process import AgentProcess
from tests.edge_place import DeviceFile
from tests.hub_parts import HubPlace, hub_place, manifest
from tests.waiting import wait_for

NAME = "line"
OLD, NEW = "exec sleep 1001", "exec sleep 1002"
# First "one", then "two"; "far", which nobody has switched on yet, has all the time that it needs.
FIRST, SECOND = (RolloutGroup(name=name, target=f"deviceId = '{name}'") for name in ("one", "two"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[HubPlace]:
    with hub_place(tmp_path / "hub") as made:
        yield made


@pytest.fixture
def agents(place: HubPlace, tmp_path: Path) -> Iterator[dict[str, AgentProcess]]:
    """Two devices that run the old version, and a third that is away."""
    with ExitStack() as running:
        made = {name: running.enter_context(AgentProcess(DeviceFile(place, name), tmp_path / name)) for name in ("one", "two")}
        place.enroll("far")
        deploy(place, OLD)
        for agent in made.values():
            agent.wait_state("m", "running", timeout_s=60)
        yield made


def deploy(place: HubPlace, script: str, on_error: OnError | None = None) -> None:
    policy = None if on_error is None else RolloutPolicy(groups=[FIRST, SECOND], on_error=on_error)
    place.deploy(msgspec.structs.replace(manifest(NAME, m=["/bin/sh", "-c", script]), rollout=policy))


def newest(place: HubPlace) -> Rollout | None:
    with place.database.read() as connection:
        return rollouts.newest(connection, NAME)


def stored(place: HubPlace) -> EdgeDeployment:
    with place.database.read() as connection:
        return edge_deployments.get(connection, NAME)


def until(place: HubPlace, holds: Callable[[Rollout], bool], what: str) -> Rollout:
    def look() -> Rollout | None:
        found = newest(place)
        return found if found is not None and holds(found) else None

    found = wait_for(look, timeout_s=90, what=what)
    assert found is not None
    return found


def kill_hub(place: HubPlace) -> None:
    assert place.hub is not None
    place.hub.kill()


def test_a_bad_version_is_reversed_by_itself(place: HubPlace, agents: dict[str, AgentProcess]) -> None:
    untouched = agents["two"].pid_of("m")
    deploy(place, "exit 3", "reverse")
    until(place, lambda found: bool(found.groups) and found.groups[0].state != "waiting", "the first group being told")
    # It has told the device, or has not; it has heard of the failure, or has not: whoever comes next goes on.
    kill_hub(place)
    place.start_hub()
    found = until(place, lambda found: found.state == "reversed", "the rollout being reversed")
    assert [group.state for group in found.groups] == ["failed", "waiting", "waiting"]
    assert found.reason == "one failed: 1 of 1 devices failed, 10 % end it"
    assert (stored(place).revision, stored(place).modules["m"].command[-1]) == (3, OLD)
    agents["one"].wait_state("m", "running")
    assert agents["two"].pid_of("m") == untouched
    with place.database.read() as connection:
        devices, _ = rollout_devices.page(connection, found.id, 10, None, "failed")
    assert [(one.device, one.reason.startswith("m was taken back: ")) for one in devices] == [("one", True)]


def test_a_good_version_waits_for_each_device(place: HubPlace, agents: dict[str, AgentProcess]) -> None:
    before = {name: agent.pid_of("m") for name, agent in agents.items()}
    module = ModuleSpec(command=["/bin/sh", "-c", NEW], update=UpdatePolicy(commit_after_s=1.0))
    policy = RolloutPolicy(groups=[FIRST, SECOND])
    place.deploy(msgspec.structs.replace(manifest(NAME), modules={"m": module}, rollout=policy))
    found = until(place, lambda found: [one.state for one in found.groups[:2]] == ["succeeded"] * 2, "two groups being good")
    one, two, rest = found.groups
    assert (rest.name, rest.state, rest.devices, found.state) == ("rest", "running", 1, "running")
    assert one.ended_at is not None
    assert two.began_at is not None
    assert two.began_at >= one.ended_at
    for name, agent in agents.items():
        assert agent.wait_pid("m", other_than=before[name]) != before[name]
