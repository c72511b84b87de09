"""The embedded broker as a process: where it listens, whom it refuses, how it ends, how much memory it takes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from hedgerow.contracts.names import MAX_MQTT_PAYLOAD_BYTES
from registry.workspace import Workspace, open_workspace
from tests.fixtures.real_process import RealProcess
from tests.waiting import accepts_connections, wait_for


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "workspace")


def argv(workspace: Workspace, *options: str) -> list[str]:
    return [sys.executable, "-P", "-m", "registry.broker", "--workspace", str(workspace.folder), *options]


@pytest.fixture
def broker(workspace: Workspace, tmp_path: Path) -> Iterator[RealProcess]:
    process = RealProcess(argv(workspace, "--port", "0", "--ready-file", str(tmp_path / "ready")), log=tmp_path / "broker.log")
    process.start().wait_until((tmp_path / "ready").exists, what="the broker being ready")
    yield process
    process.stop()


def port_of(workspace: Workspace) -> int:
    return int(json.loads((workspace.run / "broker.json").read_bytes())["url"].rpartition(":")[2])


def run(workspace: Workspace, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv(workspace, *options), capture_output=True, text=True, timeout=30, check=False)


def memory_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def test_it_says_where_it_listens_and_listens_on_loopback_only(broker: RealProcess, workspace: Workspace, tmp_path: Path) -> None:
    facts = json.loads((workspace.run / "broker.json").read_bytes())
    assert facts == {"url": f"mqtt://127.0.0.1:{port_of(workspace)}", "pid": broker.pid}
    assert json.loads((tmp_path / "ready").read_bytes()) == facts
    assert accepts_connections(port_of(workspace))
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert [address for address in listening if address.endswith(f":{port_of(workspace):04X}")] == [
        f"0100007F:{port_of(workspace):04X}"
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", ""])
def test_it_listens_nowhere_but_on_loopback(workspace: Workspace, host: str) -> None:
    ended = run(workspace, "--port", "0", "--host", host)
    assert ended.returncode == 1
    assert "listens on this machine only" in ended.stderr


def test_a_second_one_is_refused_with_the_pid_of_the_first(broker: RealProcess, workspace: Workspace) -> None:
    ended = run(workspace, "--port", "0")
    assert ended.returncode == 1
    assert f"already running as process {broker.pid}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert port_of(workspace)


def test_a_taken_port_is_named(workspace: Workspace) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = run(workspace, "--port", str(port))
    assert ended.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken" in ended.stderr
    assert not (workspace.run / "broker.json").exists()


def test_a_folder_without_a_workspace_is_refused(tmp_path: Path) -> None:
    ended = run(Workspace(tmp_path), "--port", "0")
    assert ended.returncode == 1
    assert "holds files but no Hedgerow workspace" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_cleans_up_when_it_is_told_to_stop(broker: RealProcess, workspace: Workspace, tmp_path: Path) -> None:
    port = port_of(workspace)
    broker.stop()
    assert not (workspace.run / "broker.json").exists()
    assert not (tmp_path / "ready").exists()
    assert not accepts_connections(port)
    assert "Traceback" not in broker.log_text()


def test_it_ends_with_its_parent(workspace: Workspace) -> None:
    process = subprocess.Popen(argv(workspace, "--port", "0", "--watch-parent"), stdin=subprocess.PIPE)
    try:
        wait_for((workspace.run / "broker.json").exists, what="the broker being ready")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


class Client:
    """A client that counts what it gets."""

    def __init__(self, port: int, subscribe: str = "") -> None:
        self.received: list[int] = []
        self.ready = False
        self.lost = 0
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self.paho.on_connect = lambda client, *_: client.subscribe(subscribe, 1) if subscribe else self._is_ready()
        self.paho.on_subscribe = lambda *_: self._is_ready()
        self.paho.on_disconnect = lambda *_: self._is_lost()
        self.paho.on_message = lambda _client, _data, message: self.received.append(len(message.payload))
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        wait_for(lambda: self.ready, what="the client being connected")

    def _is_ready(self) -> None:
        self.ready = True

    def _is_lost(self) -> None:
        self.lost += 1

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


@pytest.fixture
def clients(broker: RealProcess, workspace: Workspace) -> Iterator[tuple[Client, Client]]:
    made = Client(port_of(workspace), "hedgerow/+/v1/devices/+/telemetry"), Client(port_of(workspace))
    yield made
    for client in made:
        client.close()


TOPIC = "hedgerow/w/v1/devices/u/telemetry"


def test_the_largest_payload_passes_and_a_larger_one_does_not(clients: tuple[Client, Client]) -> None:
    listener, sender = clients
    sender.paho.publish(TOPIC, b"x" * MAX_MQTT_PAYLOAD_BYTES, qos=1).wait_for_publish(10)
    wait_for(lambda: listener.received, what="the largest payload")
    assert listener.received == [MAX_MQTT_PAYLOAD_BYTES]
    sender.paho.publish(TOPIC, b"x" * (MAX_MQTT_PAYLOAD_BYTES + 100_000), qos=1)
    wait_for(lambda: sender.lost, what="the broker hanging up")
    assert listener.received == [MAX_MQTT_PAYLOAD_BYTES]


def test_memory_stays_bounded_however_much_passes(broker: RealProcess, clients: tuple[Client, Client]) -> None:
    """rumqttd as iotcore sets it up keeps up to 1 GB for each filter."""
    listener, sender = clients
    payload = b"x" * 200_000
    for _ in range(600):
        sender.paho.publish(TOPIC, payload, qos=1).wait_for_publish(10)
    wait_for(lambda: len(listener.received) == 600, what="120 MB through the broker")
    assert memory_kb(broker.pid) < 60_000
