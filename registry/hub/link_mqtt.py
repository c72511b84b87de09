"""The hub's link to its broker: MQTT with paho on paho's own thread; reconnects for ever.

Telemetry and its acknowledgements pass with QoS 0, everything else with QoS 1: the protocol above sends again what a broker
lost, and brokers let only a few messages of QoS 1 (Mosquitto: 20) be under way to a client. MQTT 3.1.1, which every broker
speaks; MQTT 5 where several hubs share the subscription (``link_shared.py``).
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from hedgerow.contracts.names import MAX_MQTT_PAYLOAD_BYTES, DeviceTopics
from registry.hub.errors import BrokerUrlInvalid
from registry.hub.inbox import Inbox
from registry.hub.link import Downlink, Uplink

log = logging.getLogger(__name__)

_KEEPALIVE_S = 30
_RECONNECT_FIRST_S, _RECONNECT_CAP_S = 1, 30
_MAX_IN_FLIGHT = 100
# Answers beyond this are dropped while the broker is slow: devices ask again, memory stays bounded.
_MAX_QUEUED = 5_000
# Brokers give each message of a shared subscription to one of the hubs.
_SHARED = "$share/hubs/"
_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class BrokerAddress:
    """A broker's URL, taken apart. ``shown`` is the URL without its password."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None

    @property
    def shown(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


def parse_broker_url(url: str) -> BrokerAddress:
    """``mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]``. Raises BrokerUrlInvalid, which shows no password."""
    parts = urlsplit(url)
    hidden = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    try:
        port = parts.port
    except ValueError:
        raise BrokerUrlInvalid(url=hidden) from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path.strip("/"):
        raise BrokerUrlInvalid(url=hidden)
    return BrokerAddress(
        host=parts.hostname,
        port=_DEFAULT_PORTS[parts.scheme] if port is None else port,
        tls=parts.scheme == "mqtts",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def new_client(client_id: str, address: BrokerAddress, *, version_5: bool) -> mqtt.Client:
    """A client that keeps nothing at the broker."""
    if version_5:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
    else:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=True, protocol=mqtt.MQTTv311)
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    if address.tls:
        client.tls_set()
    return client


class MqttLink:
    """See :class:`registry.hub.link.Link`. Connects in the background as soon as it is made.

    ``shared``: with MQTT 5, other hubs take a part of the messages. ``listening``: whether to subscribe at all, now.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        topic_prefix: str,
        inbox: Inbox,
        *,
        shared: bool = False,
        listening: bool = True,
    ) -> None:
        self._address, self._prefix, self._inbox = address, topic_prefix, inbox
        self._listening = listening
        group = _SHARED if shared else ""
        # The protocol of telemetry makes good for what a broker loses.
        self._filters = [
            (group + topic, int(not topic.endswith("/telemetry"))) for topic in DeviceTopics.uplink_filters(topic_prefix)
        ]
        self._unsent: deque[mqtt.MQTTMessageInfo] = deque()
        client = new_client(client_id, address, version_5=shared)
        client.suppress_exceptions = True  # a message that trips us must not end paho's thread
        client.reconnect_delay_set(_RECONNECT_FIRST_S, _RECONNECT_CAP_S)
        client.max_inflight_messages_set(_MAX_IN_FLIGHT)
        client.max_queued_messages_set(_MAX_QUEUED)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._client = client
        client.connect_async(address.host, address.port, _KEEPALIVE_S)
        client.loop_start()

    def publish(self, downlink: Downlink) -> None:
        if not self._client.is_connected():
            return
        topics = DeviceTopics(self._prefix, downlink.device_uuid)
        topic = getattr(topics, downlink.leaf.replace("-", "_"))
        if downlink.leaf != "acks":
            self._client.publish(topic, downlink.payload, qos=1, retain=downlink.retain)
        elif self._has_room():
            self._unsent.append(self._client.publish(topic, downlink.payload, qos=0))

    def _has_room(self) -> bool:
        """paho bounds what waits with QoS 1 only. One thread calls this."""
        unsent = self._unsent
        while unsent and (unsent[0].rc != mqtt.MQTT_ERR_SUCCESS or unsent[0].is_published()):
            unsent.popleft()
        return len(unsent) < _MAX_QUEUED

    def listen(self, listening: bool) -> None:
        """Subscribe, or no longer; says nothing when that is so already."""
        if listening == self._listening:
            return
        self._listening = listening
        if listening:
            self._client.subscribe(self._filters)
        else:
            self._client.unsubscribe([topic for topic, _ in self._filters])

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            log.error("The broker %s refuses this hub: %s", self._address.shown, reason)
            return
        self._unsent = deque()  # paho has forgotten them with the connection before
        if self._listening:
            client.subscribe(self._filters)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: object, _mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            log.error("The broker %s does not let this hub subscribe below %s", self._address.shown, self._prefix)
            return
        log.info("Connected to the broker %s", self._address.shown)
        self._inbox.note_connected()

    def _on_connect_fail(self, _client: mqtt.Client, _data: object) -> None:
        log.warning("The broker %s does not answer; trying again", self._address.shown)

    def _on_disconnect(
        self, _client: mqtt.Client, _data: object, _flags: mqtt.DisconnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            log.warning("Lost the broker %s (%s); connecting again", self._address.shown, reason)

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            found = DeviceTopics.parse(message.topic, self._prefix)
        except UnicodeDecodeError:
            return
        # Devices never retain: whatever the broker kept of their topics is old or not theirs.
        if found is None or message.retain or len(message.payload) > MAX_MQTT_PAYLOAD_BYTES:
            return
        self._inbox.put(Uplink(found[0], found[1], bytes(message.payload)))
