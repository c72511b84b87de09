"""Direct methods from end to end: the REST API, the hub, a broker, a real agent and its modules."""

from __future__ import annotations

import base64
import contextlib
import queue
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from hedgerow.contracts.api_fleet import EnrolledDevice
from hedgerow.contracts.api_methods import CalledMethod, InvokeMethod
from hedgerow.contracts.device import DeviceConfig, to_toml
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.names import PAYLOAD_METHOD_CALL, DeviceTopics
from hedgerow.contracts.signed import sign
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from hedgerow.sdk.transport import Transport
from tests.agent_process import AgentProcess
from tests.fixtures.control_plane import ControlPlane
from tests.waiting import wait_for

# Says who it is once, then much, then waits.
TALKER = """
import sys, time
print("<6> 2026-11-22 12:00:00.000 +00:00 begins", flush=True)
print("<3> 2026-11-22 13:00:00.000 +00:00 trouble with ünits", flush=True)
print("<6> 2026-11-22 14:00:00.000 +00:00 goes on", flush=True)
time.sleep(1000)
"""
LINES, LINE = 60_000, "x" * 200
FLOOD = f"""
import sys, time
for number in range({LINES}):
    sys.stdout.write(f"{{number:08d}} {LINE}\\n")
sys.stdout.flush()
time.sleep(1000)
"""

# Doubles what it is asked to.
DOUBLER = """
import json, os, threading, urllib.parse
import paho.mqtt.client as mqtt
address = urllib.parse.urlsplit(os.environ["HEDGEROW_MQTT_URL"])
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.username_pw_set(os.environ["HEDGEROW_MODULE"], os.environ["HEDGEROW_TELEMETRY_TOKEN"])
def answer(client, data, message):
    name, request = message.topic.split("/")[-2:]
    client.publish(f"methods/answers/{request}/200", json.dumps({"doubled": 2 * json.loads(message.payload)}), qos=1)
client.on_connect = lambda client, *_: client.subscribe("methods/#", qos=1)
client.on_message = answer
client.connect(address.hostname, address.port)
client.loop_forever()
"""


class DeviceToml:
    """device.toml as the fixture of the agent wants it."""

    def __init__(self, enrolled: EnrolledDevice) -> None:
        self.config = enrolled.config

    def write_toml(self, path: Path) -> Path:
        path.write_text(to_toml(self.config))
        path.chmod(0o600)
        return path


class Site:
    """A control plane with one device, ``press``, on which two modules run."""

    def __init__(self, client: Client, agent: AgentProcess, config: DeviceConfig, workspace: Path) -> None:
        self.client, self.agent, self.config, self.workspace = client, agent, config, workspace

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", "from hedgerow.cli.main import main; main()", *words]
        env = {"PATH": "/usr/bin:/bin", "HEDGEROW_WORKSPACE": str(self.workspace), "HOME": str(self.workspace), "LANG": "C.UTF-8"}
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env)

    def called(self, method: str, payload: object = None, **options: Any) -> tuple[int | None, Any]:
        found = self.client.devices.invoke("press", method, payload, **options)
        assert found.state == "done", found
        return found.status, found.payload


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("methods")
    plane = ControlPlane(folder)
    try:
        plane.start()
        with plane.client() as client:
            enrolled = client.devices.enroll("press", {})
            client.devices.enroll("away", {})
            modules = {
                "talker": ModuleSpec(command=[sys.executable, "-c", TALKER], display_name="The Talker"),
                "doubler": ModuleSpec(command=[sys.executable, "-c", DOUBLER]),
                "flood": ModuleSpec(command=[sys.executable, "-c", FLOOD]),
            }
            client.edge.deploy(EdgeDeployment(name="line", target="deviceId = 'press'", modules=modules))
            options = ("--log-bytes-max", "200000000")
            with AgentProcess(DeviceToml(enrolled), folder / "device", *options) as agent:
                wait_for(lambda: client.devices.get("press").online, what="the device being online", timeout_s=30)
                agent.wait_state("talker", "running", timeout_s=30)
                agent.wait_state("flood", "running", timeout_s=30)
                yield Site(client, agent, enrolled.config, plane.workspace)
    finally:
        plane.end()


def test_ping(site: Site) -> None:
    assert site.called("ping") == (200, None)


def test_a_method_that_is_not_there_says_which_are(site: Site) -> None:
    status, said = site.called("Reboot")
    assert status == 404
    assert said["code"] == "no_such_method"
    assert "GetModuleLogs" in said["remedy"]


def test_a_restart_by_display_name(site: Site) -> None:
    before = site.agent.wait_pid("talker")
    assert site.called("RestartModule", {"schemaVersion": "1.0", "id": "The Talker"}) == (200, None)
    site.agent.wait_pid("talker", other_than=before, timeout_s=30)
    status, said = site.called("RestartModule", {"schemaVersion": "1.0", "id": "nobody"})
    assert (status, said["code"]) == (404, "no_such_module")


def test_logs_in_the_shape_of_iot_edge(site: Site) -> None:
    item = {"id": "talker", "filter": {"loglevel": 3, "regex": r"tr\w+ble"}}
    status, said = site.called("GetModuleLogs", {"schemaVersion": "1.0", "items": [item], "contentType": "text"})
    assert status == 200
    assert {entry["id"] for entry in said} == {"The Talker"}
    assert "trouble with ünits" in said[0]["payload"]
    assert "goes on" not in said[0]["payload"]


def test_logs_of_any_size_come_as_a_stream(site: Site) -> None:
    wait_for(lambda: _last_number(site) == LINES - 1, what="the flood being written", timeout_s=60)
    numbers = [int(line.text[:8]) for line in site.client.devices.logs("press", "flood")]
    assert numbers == list(range(LINES))


def _last_number(site: Site) -> int:
    return max((int(line.text[:8]) for line in site.client.devices.logs("press", "flood", tail=1)), default=-1)


def test_an_answer_that_is_too_long_to_keep_is_refused(site: Site) -> None:
    wait_for(lambda: _last_number(site) == LINES - 1, what="the flood being written", timeout_s=60)
    with pytest.raises(ApiError) as refused:
        site.called("GetModuleLogs", {"schemaVersion": "1.0", "items": [{"id": "flood"}]})
    assert refused.value.problem.code == "method_unanswered"
    assert "stream" in str(refused.value)


def test_a_device_that_is_away_is_an_answer_at_once(site: Site) -> None:
    with pytest.raises(ApiError) as refused:
        site.client.devices.invoke("away", "ping")
    assert (refused.value.problem.code, refused.value.status) == ("device_offline", 404)
    with pytest.raises(ApiError) as refused:
        site.client.devices.invoke("away", "ping", connect_timeout_s=0.5)
    assert refused.value.problem.code == "device_offline"


def test_a_call_can_be_asked_about_later(site: Site) -> None:
    http = site.client.transport
    begun = http.call("POST", "/api/v1/devices/press/methods/ping", CalledMethod, body=InvokeMethod(), query={"wait": False})
    assert begun.state in ("waiting", "sent", "done")
    wait_for(lambda: site.client.devices.method_call("press", begun.id).state == "done", what="the answer")
    assert site.client.devices.method_call("press", begun.id).status == 200
    with pytest.raises(ApiError) as refused:
        site.client.devices.method_call("away", begun.id)
    assert refused.value.status == 404


def test_recorded_and_forged_calls_do_nothing(site: Site) -> None:
    """Somebody at the broker plays a restart again, and writes one of their own."""
    config = site.config
    topic = DeviceTopics(config.topic_prefix, config.device_uuid).methods
    recorded: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    subscribed = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: recorded.put(bytes(message.payload))
    address = urlsplit(config.broker_url)
    client.username_pw_set(address.username, address.password)
    client.connect(address.hostname or "", address.port or 1883)
    client.loop_start()
    try:
        client.subscribe(topic, qos=1)
        assert subscribed.wait(30)
        before = site.agent.wait_pid("talker")
        site.called("RestartModule", {"id": "talker"})
        after = site.agent.wait_pid("talker", other_than=before, timeout_s=30)
        refused = site.agent.metric("hedgerow_agent_messages_refused_total")
        envelope = recorded.get(timeout=30)
        forged = sign(
            PAYLOAD_METHOD_CALL, base64.b64decode(msgspec.json.decode(envelope)["payload"]), {"k1": lambda _: b"x" * 64}
        )
        for played in (envelope, envelope, forged, b"nonsense"):
            client.publish(topic, played, qos=1).wait_for_publish(30)
        wait_for(lambda: site.agent.metric("hedgerow_agent_messages_refused_total") >= refused + 4, what="four refusals")
        assert site.agent.pid_of("talker") == after
    finally:
        client.disconnect()
        client.loop_stop()


def test_only_those_who_may_change_devices_call_methods(site: Site) -> None:
    tokens = {
        "reader": site.client.tokens.create("reader", "reader"),
        "other": site.client.tokens.create("other", "contributor", scopes=["devices:away"]),
        "own": site.client.tokens.create("own", "contributor", scopes=["devices:pr*"]),
    }
    socket = site.workspace / "run" / "server.sock"
    found = {}
    for name, token in tokens.items():
        transport = Transport(site.client.transport.base_url, token.secret, socket=socket)
        try:
            with contextlib.suppress(ApiError):
                found[name] = Client(transport).devices.invoke("press", "ping").status
        finally:
            transport.close()
    assert found == {"own": 200}


def test_a_call_is_an_event_without_its_payload(site: Site) -> None:
    site.called("ping", {"sasUrl": "https://secret.example"})
    event = next(event for event in site.client.events.list(newest=True, kind="device.method-called").items)
    assert event.subject == "device/press"
    assert event.details["method"] == "ping"
    assert "secret" not in repr(event)


def test_the_command_line(site: Site, tmp_path: Path) -> None:
    ping = site.cli("device", "invoke", "press", "ping", "--json")
    assert (ping.returncode, msgspec.json.decode(ping.stdout)["status"]) == (0, 200)
    none = site.cli("device", "invoke", "press", "Reboot", '{"now": true}')
    assert (none.returncode, "no_such_method" in none.stdout) == (1, True)
    graver = site.cli("device", "logs", "press", "talker", "--level", "error")
    assert set(graver.stdout.splitlines()) == {"<3> 2026-11-22 13:00:00.000 +00:00 trouble with ünits"}
    some = site.cli("device", "logs", "press", "talker", "--tail", "3", "--grep", "goes", "--json")
    assert msgspec.json.decode(some.stdout)["text"].endswith("goes on")
    nobody = site.cli("device", "logs", "press", "nobody")
    assert (nobody.returncode, "It has: doubler, flood, talker" in nobody.stderr) == (1, True)
    bomb = site.cli("device", "logs", "press", "talker", "--grep", "(")
    assert (bomb.returncode, "cannot be used" in bomb.stderr) == (1, True)
    bundle = tmp_path / "bundle.tar.gz"
    assert site.cli("device", "support-bundle", "press", "-o", str(bundle)).returncode == 0
    with tarfile.open(bundle) as archive:
        assert "support-bundle/logs/flood.log" in archive.getnames()


def _last_words(site: Site) -> str:
    return "".join(line.text for line in site.client.devices.logs("press", "talker", tail=1))


def test_following_goes_on_behind_what_was_read(site: Site) -> None:
    wait_for(lambda: _last_words(site).endswith("goes on"), what="the end of what it says")
    lines = site.client.devices.follow_logs("press", "talker", tail=1, every_s=0.1)
    assert next(lines).text.endswith("goes on")
    # A restart writes the same three lines again, behind them.
    before = site.agent.wait_pid("talker")
    site.client.devices.restart_module("press", "talker")
    site.agent.wait_pid("talker", other_than=before, timeout_s=30)
    assert [next(lines).text.rpartition(" ")[2] for _ in range(3)] == ["begins", "ünits", "on"]


def test_a_module_answers_a_method_of_its_own(site: Site) -> None:
    wait_for(
        lambda: site.called("double", 21, module="doubler", timeout_s=5)[0] == 200, what="the module listening", timeout_s=60
    )
    assert site.called("double", 4, module="doubler") == (200, {"doubled": 8})
    assert site.called("double", 4, module="talker", timeout_s=5)[0] == 404
