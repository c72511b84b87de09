"""A small hub for tests of the agent: ``HubModel`` behind a real broker, with desired states that it signs."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import DesiredModule
from hedgerow.contracts.names import DeviceTopics
from hedgerow.contracts.seal import seal, unseal
from hedgerow.contracts.status import StatusReport
from hedgerow.contracts.telemetry import Hello, TelemetryBatch
from tests.agent_builders import Workspace, desired
from tests.hub_model import HubModel


class SmallHub:
    """One workspace with one device. ``mute`` swallows acks, ``drop`` ignores so many batches. Survives broker restarts."""

    def __init__(self, workspace: Workspace, port: int) -> None:
        self.workspace = workspace
        self.model = HubModel()
        self.version = 0
        self.mute = False
        self.drop = 0
        self.reports: list[StatusReport] = []
        self.lock = threading.RLock()
        self._envelope: bytes | None = None
        self._ready = threading.Event()
        self._topics = DeviceTopics(workspace.config.topic_prefix, workspace.uuid)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"hub-{secrets.token_hex(4)}")
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._arrived
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10), "the test's hub could not subscribe"

    def __enter__(self) -> SmallHub:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def deploy(self, modules: Mapping[str, DesiredModule]) -> int:
        """Sign and send a desired state; returns its version."""
        with self.lock:
            self.version += 1
            state = desired(modules, version=self.version, incarnation=self.model.incarnation, uuid=self.workspace.uuid)
            self._envelope = self.workspace.signed(state)
            self.send("desired", self._envelope)
            return self.version

    def send(self, leaf: str, payload: bytes) -> None:
        """Publish anything to the device."""
        self._client.publish(getattr(self._topics, leaf), payload, qos=1)

    def send_sealed(self, leaf: str, document: msgspec.Struct) -> None:
        self.send(leaf, seal(self.workspace.device_key, self.workspace.uuid, leaf, encode(document)))

    def bodies(self, stream: str = "telemetry") -> list[str]:
        with self.lock:
            return self.model.bodies(stream)

    @property
    def report(self) -> StatusReport | None:
        """The newest report."""
        with self.lock:
            return self.reports[-1] if self.reports else None

    def state_of(self, module: str) -> str:
        """State of a module in the newest report, "" when it is not there."""
        report = self.report
        return report.modules[module].state if report and module in report.modules else ""

    def _connected(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe([(self._topics.hello, 1), (self._topics.telemetry, 1), (self._topics.status, 1)])

    def _arrived(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        leaf = message.topic.rpartition("/")[2]
        payload = unseal(self.workspace.device_key, self.workspace.uuid, leaf, bytes(message.payload))
        with self.lock:
            if leaf == "hello":
                self.send_sealed("welcome", self.model.hello(decode(payload, Hello)))
                if self._envelope is not None:
                    self.send("desired", self._envelope)
            elif leaf == "status":
                self.reports.append(decode(payload, StatusReport))
            else:
                self._batch(decode(payload, TelemetryBatch))

    def _batch(self, batch: TelemetryBatch) -> None:
        if self.drop:
            self.drop -= 1
            return
        ack = self.model.batch(batch)
        if ack is not None and not self.mute:
            self.send_sealed("acks", ack)
