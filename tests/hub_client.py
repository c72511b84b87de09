"""A real MQTT client (paho) at the local hub, for tests: connects, collects what it gets, says when it is done."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.waiting import wait_for


class HubClient:
    """``with HubClient(port, "m", token) as client``: connected inside. ``version`` is mqtt.MQTTv311 or mqtt.MQTTv5."""

    def __init__(
        self,
        port: int,
        user: str,
        password: str,
        *,
        version: Any = mqtt.MQTTv311,
        client_id: str = "test",
        manual: bool = False,
        receive_max: int | None = None,
    ) -> None:
        self.port = port
        self._receive_max = receive_max
        self.messages: list[mqtt.MQTTMessage] = []
        self.published: list[tuple[int, Any]] = []
        self.connected: list[Any] = []
        self.ended: list[Any] = []
        self.granted: list[list[Any]] = []
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=manual,
        )
        self.mqtt.username_pw_set(user, password)
        self.mqtt.max_inflight_messages_set(500)
        self.mqtt.on_connect = lambda _c, _d, _f, reason, _p: self.connected.append(reason)
        self.mqtt.on_disconnect = lambda _c, _d, _f, reason, _p: self.ended.append(reason)
        self.mqtt.on_message = lambda _c, _d, message: self.messages.append(message)
        self.mqtt.on_publish = lambda _c, _d, mid, reason, _p: self.published.append((mid, reason))
        self.mqtt.on_subscribe = lambda _c, _d, _mid, reasons, _p: self.granted.append(list(reasons))

    def __enter__(self) -> HubClient:
        self.start()
        wait_for(lambda: self.connected, timeout_s=30, what="the local hub's CONNACK")
        return self

    def start(self) -> None:
        """Connect, whatever the answer will be."""
        properties = None
        if self._receive_max is not None:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types there
            properties.ReceiveMaximum = self._receive_max
        self.mqtt.connect("127.0.0.1", self.port, keepalive=60, properties=properties)
        self.mqtt.loop_start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def publish(self, topic: str, payload: bytes | str, *, qos: int = 1, user: list[tuple[str, str]] | None = None) -> int:
        properties = None
        if user:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types there
            properties.UserProperty = user
        return self.mqtt.publish(topic, payload, qos=qos, properties=properties).mid

    def say(self, topic: str, payload: bytes | str, *, qos: int = 1, user: list[tuple[str, str]] | None = None) -> None:
        """Publish, and wait for the acknowledgement."""
        mid = self.publish(topic, payload, qos=qos, user=user)
        wait_for(lambda: any(done == mid for done, _ in self.published), timeout_s=30, what=f"the answer to {topic}")

    def subscribe(self, *filters: str, qos: int = 1) -> list[Any]:
        """What was granted for each filter."""
        before = len(self.granted)
        self.mqtt.subscribe([(pattern, qos) for pattern in filters])
        wait_for(lambda: len(self.granted) > before, timeout_s=30, what="SUBACK")
        return self.granted[-1]

    def wait_messages(self, count: int) -> list[mqtt.MQTTMessage]:
        wait_for(lambda: len(self.messages) >= count, timeout_s=30, what=f"{count} messages")
        return self.messages
