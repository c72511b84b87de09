"""A device gets another key while it works: server, hub, broker and agent as real processes; nothing lost, nothing twice."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hedgerow.contracts.api_fleet import Device
from hedgerow.contracts.device import DeviceConfig, to_toml
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.sdk.client import Client
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.edge_place import POSTER
from tests.fixtures.control_plane import ControlPlane
from tests.waiting import free_port, wait_for

PATIENCE_S = 60.0


class Enrolled:
    """A device's config as ``AgentProcess`` takes it."""

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config

    def write_toml(self, path: Path) -> Path:
        path.write_text(to_toml(self.config))
        path.chmod(0o600)
        return path


def posting(folder: Path) -> EdgeDeployment:
    command = [sys.executable, "-c", POSTER, "0.02", str(folder / "rest")]
    return EdgeDeployment(name="posting", target="*", modules={"a": ModuleSpec(command=command)})


def told(agent: AgentProcess) -> list[int]:
    path = agent.state / "modules" / "a" / "work" / "told"
    return [int(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def more_told(agent: AgentProcess) -> None:
    before = len(told(agent))
    wait_for_or_show(agent, lambda: len(told(agent)) > before + 20, PATIENCE_S, "more messages of the module")


def nothing_lost_nothing_twice(client: Client, agent: AgentProcess) -> None:
    """The module rests; all that it was told of is stored, once."""
    (agent.folder / "rest").touch()

    def stored() -> list[int]:
        return sorted(int(message.body) for message in client.telemetry.iterate(device="porch"))

    last = told(agent)[-1]
    wait_for_or_show(agent, lambda: stored()[-1:] >= [last], PATIENCE_S, f"message {last} at the hub")
    found = stored()
    assert found == list(range(len(found)))


@contextmanager
def a_plane(folder: Path, *options: str) -> Iterator[ControlPlane]:
    plane = ControlPlane(folder, *options)
    try:
        yield plane.start()
    finally:
        plane.end()


@pytest.fixture(params=["embedded broker", "mosquitto with logins"])
def plane(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlPlane]:
    own = ["--mosquitto", f"127.0.0.1:{free_port()}", "--mosquitto-names", "localhost"] if "mosquitto" in request.param else []
    with a_plane(tmp_path, *own) as started:
        yield started


def rotated(client: Client, agent: AgentProcess, generation: int) -> Device:
    def look() -> Device | None:
        device = client.devices.get("porch")
        return device if device.key_generation == generation and device.online else None

    found = wait_for_or_show(agent, look, PATIENCE_S, f"key {generation} being heard")
    assert found is not None
    return found


def test_a_working_device_changes_its_key_and_nothing_else(plane: ControlPlane, tmp_path: Path) -> None:
    with plane.client() as client:
        enrolled = client.devices.enroll("porch").config
        with AgentProcess(Enrolled(enrolled), tmp_path / "device") as agent:
            client.edge.deploy(posting(agent.folder))
            pid = agent.wait_pid("a")
            more_told(agent)
            for generation in (2, 3):
                wanted = client.devices.rotate_key("porch")
                assert (wanted.key_generation, wanted.wanted_key_generation) == (generation - 1, generation)
                rotated(client, agent, generation)
                more_told(agent)
            agent.kill()
            agent.start()
            more_told(agent)
            assert agent.pid_of("a") == pid, "the module was started again"
            nothing_lost_nothing_twice(client, agent)
            kept = agent.state / "keys.json"
            assert kept.stat().st_mode & 0o777 == 0o600
            kinds = [event.kind for event in client.devices.events("porch").items]
            assert kinds.count("key-rotated") == 2
            assert "old-key" not in kinds
            assert "forged" not in kinds


def test_a_card_of_before_is_told_so(tmp_path: Path) -> None:
    with a_plane(tmp_path) as plane, plane.client() as client:
        enrolled = client.devices.enroll("porch").config
        with AgentProcess(Enrolled(enrolled), tmp_path / "device") as agent:
            wait_for_or_show(agent, lambda: client.devices.get("porch").online, PATIENCE_S, "the device online")
            client.devices.rotate_key("porch")
            rotated(client, agent, 2)
        with AgentProcess(Enrolled(enrolled), tmp_path / "old card") as old:
            wait_for_or_show(
                old, lambda: any(one.action == "session-refused" for one in old.decisions()), PATIENCE_S, "the refusal"
            )
            (refusal,) = {one.reason for one in old.decisions() if one.action == "session-refused"}
            assert "it speaks with key 1, and has had key 2 since" in refusal
            assert "enrol it anew" in refusal
        wait_for(
            lambda: "old-key" in [event.kind for event in client.devices.events("porch").items],
            timeout_s=PATIENCE_S,
            what="the operator being told",
        )
