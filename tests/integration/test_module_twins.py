"""Twins of modules from end to end: a module under a real agent, a real control plane, the SDK and the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edge_agent.telemetry.tokens import Tokens
from hedgerow.cli.main import cli
from hedgerow.contracts.device import DeviceConfig, to_toml
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.twins import ModuleTwin
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.fixtures.control_plane import ControlPlane

# Reports every property that is desired of it, as IoT Edge's modules do.
OBEDIENT = """
import json, os, urllib.parse
import paho.mqtt.client as mqtt
address = urllib.parse.urlsplit(os.environ["HEDGEROW_MQTT_URL"])
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="c")
client.username_pw_set(os.environ["HEDGEROW_MODULE"], os.environ["HEDGEROW_TELEMETRY_TOKEN"])
client.reconnect_delay_set(1, 1)
def arrived(_client, _data, message):
    twin = json.loads(message.payload)
    client.publish("twin/reported", json.dumps({**twin, "$version": None, "seen": twin["$version"]}), qos=1)
client.on_message = arrived
client.on_connect = lambda *_: client.subscribe("twin/desired", 1)
client.connect(address.hostname, address.port)
client.loop_forever()
"""


class DeviceFile:
    def __init__(self, config: DeviceConfig) -> None:
        self.config = config

    def write_toml(self, path: Path) -> Path:
        path.write_text(to_toml(self.config))
        path.chmod(0o600)
        return path


class Edge:
    """A device "press-1" with a module "m" that reports what is desired of it."""

    def __init__(self, plane: ControlPlane, client: Client, agent: AgentProcess, token: str) -> None:
        self.plane, self.client, self.agent, self.token = plane, client, agent, token

    def twin(self) -> ModuleTwin:
        return self.client.devices.module_twin("press-1", "m")

    def wait(self, wanted: Callable[[ModuleTwin], bool], what: str) -> ModuleTwin:
        def look() -> ModuleTwin | None:
            try:
                twin = self.twin()
            except ApiError:
                return None
            return twin if wanted(twin) else None

        found = wait_for_or_show(self.agent, look, 90, what)
        assert found is not None
        return found

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        headers = {"authorization": f"Bearer {self.token}"}
        status, text = self.agent._request(method, path, None if body is None else json.dumps(body), headers)
        return status, json.loads(text)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["-w", str(self.plane.workspace), *arguments], catch_exceptions=False)


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    plane = ControlPlane(tmp_path).start()
    try:
        with plane.client() as client:
            config = client.devices.enroll("press-1").config
            modules = {"m": ModuleSpec(command=[sys.executable, "-c", OBEDIENT])}
            twins: dict[str, dict[str, object]] = {"m": {"rate": 1, "mode": {"fast": True}}}
            client.edge.deploy(EdgeDeployment(name="line", target="*", modules=modules, twins=twins))
            with AgentProcess(DeviceFile(config), tmp_path / "device") as agent:
                yield Edge(plane, client, agent, Tokens(config.key_bytes()).of("m"))
    finally:
        plane.end()


@pytest.mark.timeout(300)
def test_what_is_desired_reaches_the_module_and_what_it_reports_the_operator(edge: Edge) -> None:
    first = edge.wait(lambda twin: twin.reported.get("seen") == 1, "the module's first report")
    assert (first.desired, first.desired_version) == ({"rate": 1, "mode": {"fast": True}}, 1)
    assert first.reported == {"rate": 1, "mode": {"fast": True}, "seen": 1}
    assert (first.patch, first.revision, first.reported_version) == ({}, 0, 1)

    edge.client.devices.patch_module_twin("press-1", "m", {"rate": 5, "mode": {"slow": 1}}, revision=0)
    second = edge.wait(lambda twin: twin.reported.get("seen") == 2, "the report on the patch")
    assert second.reported == {"rate": 5, "mode": {"fast": True, "slow": 1}, "seen": 2}
    assert (second.patch, second.revision) == ({"rate": 5, "mode": {"slow": 1}}, 1)
    with pytest.raises(ApiError) as refused:
        edge.client.devices.patch_module_twin("press-1", "m", {"rate": 6}, revision=0)
    assert refused.value.problem.code == "precondition_failed"
    for key, wrong in (("no_module_of_device", ("press-1", "stranger", {})), ("twin_invalid", ("press-1", "m", {"$version": 3}))):
        with pytest.raises(ApiError) as refused:
            edge.client.devices.patch_module_twin(*wrong)
        assert refused.value.problem.code == key
    assert [twin.module for twin in edge.client.devices.modules("press-1")] == ["m"]
    assert edge.client.devices.twin("press-1").modules["m"].reported == second.reported
    assert "device.twin-patched" in [event.kind for event in edge.client.events.list().items]

    _by_the_command_line(edge)
    _over_http(edge)
    _across_kills(edge)
    _larger_than_a_message(edge)
    assert "Traceback" not in edge.plane.process.log_text()


def _by_the_command_line(edge: Edge) -> None:
    changed = edge.run("device", "twin", "press-1", "m", "--set", "mode.slow=2", "--set", "note=x y", "--unset", "rate")
    assert changed.exit_code == 0
    assert "mode.slow, note changed on this device (revision 2)" in changed.output
    edge.wait(lambda twin: twin.reported.get("seen") == 3, "the report on the command's patch")
    shown = edge.run("device", "twin", "press-1", "m").output
    assert [line.split() for line in shown.splitlines() if line.startswith(("mode.slow", "note", "rate", "seen"))] == [
        ["mode.slow", "2", "2"],
        ["note", "x", "y", "x", "y"],
        ["rate", "1", "1"],
        ["seen", "3"],
    ]
    document = json.loads(edge.run("device", "twin", "press-1", "m", "--json").output)
    assert document["patch"] == {"mode": {"slow": 2}, "note": "x y"}
    assert "TWIN OF" in edge.run("device", "twin", "press-1").output
    assert edge.run("device", "twin", "press-1", "--set", "a=1").exit_code == 2
    broken = edge.run("device", "twin", "press-1", "m", "--set", "a=[1")
    assert (broken.exit_code, "a=[1 is not JSON" in broken.output) == (2, True)
    stranger = CliRunner().invoke(cli, ["-w", str(edge.plane.workspace), "device", "twin", "press-1", "stranger"])
    assert isinstance(stranger.exception, ApiError)
    assert "hedgerow device show press-1" in stranger.exception.problem.remedy
    assert "nothing is changed on this device" in edge.run("device", "twin", "press-1", "m", "--reset").output
    edge.wait(lambda twin: twin.reported == {"rate": 1, "mode": {"fast": True}, "seen": 4}, "the report on the reset")


def _over_http(edge: Edge) -> None:
    assert edge.ask("GET", "/twin/desired") == (200, {"rate": 1, "mode": {"fast": True}, "$version": 4})
    assert edge.ask("GET", "/twin/desired?version=3&wait_s=40")[1]["$version"] == 4
    status, kept = edge.ask("PATCH", "/twin/reported", {"http": {"a": 1}, "mode": None})
    assert status == 200
    assert edge.ask("GET", "/twin/reported") == (200, {"rate": 1, "seen": 4, "http": {"a": 1}, "$version": kept["version"]})
    edge.wait(lambda twin: twin.reported_version == kept["version"], "what was reported over HTTP")
    assert edge.ask("PUT", "/twin/reported", [])[0] == 400
    assert edge.ask("GET", "/twin/other")[0] == 404


def _across_kills(edge: Edge) -> None:
    """What was answered is on the disk; the module runs on, and is told what changed meanwhile."""
    pid = edge.agent.wait_pid("m")
    status, kept = edge.ask("PUT", "/twin/reported", {"before": "the kill"})
    edge.agent.kill()
    assert status == 200
    edge.client.devices.patch_module_twin("press-1", "m", {"rate": 8})
    edge.agent.start()
    last = edge.wait(lambda twin: twin.reported.get("seen") == 5, "the report after the kill")
    assert (last.reported["rate"], edge.agent.pid_of("m")) == (8, pid)
    assert last.reported_version > kept["version"]


def _larger_than_a_message(edge: Edge) -> None:
    """A desired state of megabytes arrives all the same: by its hash."""
    before = edge.agent.wait_pid("m")
    large = ModuleSpec(command=["x"], status="stopped", variables={"LARGE": "x" * 2_000_000})
    edge.client.edge.deploy(EdgeDeployment(name="large", target="*", layered=True, modules={"large": large}))
    wait_for_or_show(edge.agent, lambda: edge.agent.module("large"), 60, "the large desired state")
    assert edge.agent.pid_of("m") == before
    edge.client.devices.patch_module_twin("press-1", "m", {"rate": 9})
    edge.wait(lambda twin: twin.reported.get("rate") == 9, "a patch upon it")
