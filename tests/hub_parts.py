"""A hub and its broker as real processes on one workspace, and a device that speaks the protocol by the contracts."""

from __future__ import annotations

import base64
import json
import queue
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from paho.mqtt.enums import CallbackAPIVersion

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import DesiredState, EdgeDeployment, ModuleSpec
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE, DeviceTopics
from hedgerow.contracts.seal import device_key, seal, unseal
from hedgerow.contracts.signed import open_signed
from hedgerow.contracts.status import DesiredOutcome, ModuleStatus, StatusReport
from hedgerow.contracts.telemetry import (
    CHAIN_START,
    Hello,
    TelemetryAck,
    TelemetryBatch,
    TelemetryGap,
    TelemetryMessage,
    Welcome,
    chain_over,
)
from registry.store import edge_deployments, fleet, schema
from registry.store.database import Database, open_database
from registry.wakeups_socket import SocketWakeups
from registry.workspace import Workspace, open_workspace
from tests.fixtures.real_process import RealProcess
from tests.waiting import wait_for

D = TypeVar("D", bound=msgspec.Struct)
T = TypeVar("T")
STREAM = "readings"


def awaited(look: Callable[[], T | None], *, timeout_s: float, what: str) -> T:
    """What ``look`` finds, as soon as it finds something."""
    found = wait_for(look, timeout_s=timeout_s, what=what)
    assert found is not None
    return found


def say_hello(device_uuid: str, **changes: object) -> Hello:
    """A hello of the first start of agent "a"."""
    hello = Hello(
        device_uuid=device_uuid,
        nonce=secrets.token_hex(8),
        instance="a",
        starts=1,
        epoch="e1",
        streams=[STREAM],
        agent_version="test",
        time_ms=0,
    )
    return msgspec.structs.replace(hello, **changes)


def say_status(device_uuid: str, session: str, sequence: int, **modules: str) -> StatusReport:
    """A report on modules by name and state."""
    return StatusReport(
        device_uuid=device_uuid,
        session=session,
        sequence=sequence,
        reported_at=datetime(2026, 11, 21, tzinfo=UTC),
        agent_version="test",
        boot_id="b",
        desired=DesiredOutcome(version=1, code=200, message="ok"),
        modules={name: ModuleStatus(state=state, reason="", restart_count=2) for name, state in modules.items()},  # type: ignore[arg-type]  # states as plain text
    )


def manifest(name: str, target: str = "*", priority: int = 0, **commands: Sequence[str]) -> EdgeDeployment:
    """An edge deployment of process modules, by name and command."""
    modules = {module: ModuleSpec(command=list(command)) for module, command in commands.items()}
    return EdgeDeployment(name=name, target=target, priority=priority, modules=modules)


@dataclass
class Tape:
    """The messages of one stream of one buffer file, as a device numbers and chains them."""

    device_uuid: str
    epoch: str = "e1"
    stream: str = STREAM
    messages: list[TelemetryMessage] = field(default_factory=list)
    chains: list[str] = field(default_factory=lambda: [CHAIN_START])

    def record(self, *bodies: str, module: str = "pump") -> None:
        for body in bodies:
            sequence = len(self.messages) + 1
            message = TelemetryMessage(sequence=sequence, time_ms=1_000 + sequence, module=module, body=body)
            self.messages.append(message)
            self.chains.append(chain_over(self.chains[-1], [message]))

    def batch(self, first: int, last: int, session: str = "") -> TelemetryBatch:
        """Messages ``first`` to ``last``, numbered from 1."""
        return self._batch(first, last, session, messages=self.messages[first - 1 : last])

    def gap(self, first: int, last: int, session: str = "", reason: str = "quota") -> TelemetryBatch:
        """The same place in the stream, but the messages are lost."""
        lost = TelemetryGap(first_sequence=first, last_sequence=last, reason=reason)  # type: ignore[arg-type]  # one of the four words
        return self._batch(first, last, session, gap=lost)

    def _batch(self, first: int, last: int, session: str, **content: object) -> TelemetryBatch:
        return TelemetryBatch(
            device_uuid=self.device_uuid,
            session=session,
            epoch=self.epoch,
            stream=self.stream,
            first_sequence=first,
            previous_chain=self.chains[first - 1],
            chain=self.chains[last],
            **content,  # type: ignore[arg-type]  # messages or a gap
        )


class ProtocolDevice:
    """One device with a real MQTT connection. It sends again what is not answered; nothing else is clever about it."""

    def __init__(self, workspace: Workspace, device_uuid: str, port: int) -> None:
        self.uuid = device_uuid
        self.key = device_key(workspace.device_master, device_uuid, fleet.FIRST_KEY_GENERATION)
        self.topics = DeviceTopics(workspace.topic_prefix, device_uuid)
        self.session = ""
        self._trusted = workspace.trusted_key
        self._inbound: dict[str, queue.SimpleQueue[bytes]] = {
            topic: queue.SimpleQueue() for topic in (self.topics.welcome, self.topics.desired, self.topics.acks)
        }
        self._subscribed = False
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe([(topic, 1) for topic in self._inbound])
        self._client.on_subscribe = lambda *_: setattr(self, "_subscribed", True)
        self._client.on_disconnect = lambda *_: setattr(self, "_subscribed", False)
        self._client.on_message = lambda _client, _data, message: self._inbound[message.topic].put(bytes(message.payload))
        self._client.connect_async("127.0.0.1", port, 30)
        self._client.loop_start()
        wait_for(lambda: self._subscribed, what="the device being subscribed")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, leaf: str, document: msgspec.Struct) -> None:
        self.publish_raw(leaf, seal(self.key, self.uuid, leaf, encode(document)))

    def publish_raw(self, leaf: str, payload: bytes) -> None:
        self._client.publish(getattr(self.topics, leaf), payload, qos=1)

    def received(self, leaf: str, timeout_s: float) -> bytes | None:
        """The next message of this kind."""
        try:
            return self._inbound[getattr(self.topics, leaf)].get(timeout=timeout_s)
        except queue.Empty:
            return None

    def forget(self, leaf: str) -> None:
        """Drop what arrived of this kind so far."""
        while self.received(leaf, 0.05) is not None:
            pass

    def open_sealed(self, leaf: str, payload: bytes, kind: type[D]) -> D:
        return decode(unseal(self.key, self.uuid, leaf, payload), kind)

    def greet(self, hello: Hello | None = None, *, timeout_s: float = 20.0) -> Welcome:
        """Say hello until the welcome to it comes."""
        hello = hello or say_hello(self.uuid)

        def answer() -> Welcome | None:
            self.publish("hello", hello)
            payload = self.received("welcome", 1.0)
            welcome = payload and self.open_sealed("welcome", payload, Welcome)
            return welcome if welcome and welcome.nonce == hello.nonce else None

        welcome = awaited(answer, timeout_s=timeout_s, what="a welcome")
        self.session = welcome.session or ""
        return welcome

    def ship(self, batch: TelemetryBatch, *, timeout_s: float = 20.0, every_s: float = 1.0) -> TelemetryAck:
        """Send until an ack for this stream comes that covers the batch or refuses it."""
        last = batch.gap.last_sequence if batch.gap else batch.messages[-1].sequence

        def answer() -> TelemetryAck | None:
            self.publish("telemetry", batch)
            payload = self.received("acks", every_s)
            while payload is not None:
                ack = self.open_sealed("acks", payload, TelemetryAck)
                if (ack.epoch, ack.stream) == (batch.epoch, batch.stream) and (ack.refused or ack.watermark >= last):
                    return ack
                payload = self.received("acks", every_s)
            return None

        return awaited(answer, timeout_s=timeout_s, what=f"an ack for sequence {last}")

    def desired(self, wanted: Callable[[DesiredState], bool] = bool, *, timeout_s: float = 20.0) -> DesiredState:
        """The next desired state that verifies and is ``wanted``."""

        def look() -> DesiredState | None:
            payload = self.received("desired", 0.5)
            if not payload:
                return None
            state = self.open_desired(payload)
            return state if wanted(state) else None

        return awaited(look, timeout_s=timeout_s, what="the desired state")

    def open_desired(self, envelope: bytes) -> DesiredState:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(self._trusted.key))

        def verify(signature: bytes, message: bytes) -> bool:
            key.verify(signature, message)
            return True

        return decode(open_signed(envelope, PAYLOAD_DESIRED_STATE, {self._trusted.keyid: verify}), DesiredState)


class HubPlace:
    """A workspace with a broker and a hub; both can be killed and started again."""

    def __init__(
        self,
        folder: Path,
        *,
        broker_port: int | None = None,
        database_url: str | None = None,
        share: bool = False,
        inside: Sequence[str] = (),
    ) -> None:
        self._share, self._inside = share, list(inside)
        self.workspace = open_workspace(folder)
        self.database: Database = open_database(database_url, self.workspace.folder)
        schema.upgrade(self.database, self.workspace)
        self._database_url = database_url
        self._port = broker_port
        self._logs = folder.parent
        self.broker = self._broker(0) if broker_port is None else None
        self.hub: RealProcess | None = None
        self.second_hub: RealProcess | None = None
        self._devices: list[ProtocolDevice] = []
        self._wakeups = SocketWakeups(self.workspace.run)

    @property
    def port(self) -> int:
        assert self._port is not None, "the broker was not started"
        return self._port

    def start(self) -> HubPlace:
        if self.broker is not None:
            self.start_broker()
        self.start_hub()
        return self

    def start_broker(self) -> None:
        """A broker that is started again gets the port that it had."""
        assert self.broker is not None
        facts = self.workspace.run / "broker.json"
        self.broker.start()
        pid = self.broker.pid
        self.broker.wait_until(
            lambda: facts.exists() and json.loads(facts.read_bytes())["pid"] == pid, what="the broker being ready"
        )
        self._port = int(json.loads(facts.read_bytes())["url"].rpartition(":")[2])
        self.broker = self._broker(self._port, running=self.broker)

    def start_hub(self) -> None:
        if self.hub is None:
            self.hub = self._hub("hub")
        self._until_ready(self.hub, "hub")

    def start_second_hub(self) -> None:
        """Beside the first, on a place with ``share``."""
        if self.second_hub is None:
            self.second_hub = self._hub("hub-2")
        self._until_ready(self.second_hub, "hub-2")

    def _hub(self, name: str) -> RealProcess:
        options = ["--workspace", str(self.workspace.folder), "--ready-file", str(self.workspace.run / f"{name}.ready")]
        env = {"HEDGEROW_BROKER_URL": f"mqtt://127.0.0.1:{self.port}"}
        if self._database_url is not None:
            env["HEDGEROW_DATABASE"] = self._database_url
        argv = [*self._inside, sys.executable, "-P", "-m", "registry.hub", *options, *(["--share"] if self._share else [])]
        return RealProcess(argv, log=self._logs / f"{name}.log", env=env)

    def _until_ready(self, hub: RealProcess, name: str) -> None:
        ready = self.workspace.run / f"{name}.ready"
        hub.start()
        pid = hub.pid
        hub.wait_until(lambda: ready.exists() and json.loads(ready.read_bytes())["pid"] == pid, what="the hub being ready")

    def enroll(self, name: str, **tags: str) -> str:
        """Make a device; returns its uuid."""
        with self.database.write() as connection:
            return fleet.enroll(connection, EnrollDevice(name=name, tags=tags), datetime.now(UTC)).uuid

    def device(self, device_uuid: str) -> ProtocolDevice:
        """A connected device; closed at the end."""
        made = ProtocolDevice(self.workspace, device_uuid, self.port)
        self._devices.append(made)
        return made

    def deploy(self, wanted: EdgeDeployment) -> None:
        with self.database.write() as connection:
            edge_deployments.put(connection, wanted, datetime.now(UTC))
        self._wakeups.wake("hub")

    def wake(self) -> None:
        self._wakeups.wake("hub")

    def events(self) -> list[str]:
        """Kinds of all fleet events, newest first."""
        with self.database.read() as connection:
            return [event.kind for event in fleet.events_before(connection, 1000)]

    def end(self) -> None:
        for device in self._devices:
            device.close()
        for process in (self.hub, self.second_hub, self.broker):
            if process is not None:
                process.stop()
        self._wakeups.close()
        self.database.close()

    def _broker(self, port: int, running: RealProcess | None = None) -> RealProcess:
        argv = [sys.executable, "-P", "-m", "registry.broker", "--workspace", str(self.workspace.folder), "--port", str(port)]
        if running is not None:
            running.argv = argv
            return running
        return RealProcess(argv, log=self._logs / "broker.log")


@contextmanager
def hub_place(
    folder: Path,
    *,
    broker_port: int | None = None,
    database_url: str | None = None,
    share: bool = False,
    inside: Sequence[str] = (),
) -> Iterator[HubPlace]:
    """A started HubPlace below ``folder``; a broker of its own unless ``broker_port`` names another.

    ``share``: its hubs share the work. ``inside``: the beginning of the hub's command line, for one in another namespace.
    """
    place = HubPlace(folder / "workspace", broker_port=broker_port, database_url=database_url, share=share, inside=inside)
    try:
        yield place.start()
    finally:
        place.end()
