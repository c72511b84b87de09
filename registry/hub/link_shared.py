"""The link of a hub that shares its work with others: one group with MQTT 5, one at a time with MQTT 3.1.1.

Asks the broker first. Where it offers shared subscriptions every hub subscribes and gets a part of the messages. Where it does
not, the hub that holds the lease ``ingest`` subscribes and the others stand by, so a broker of 1999 costs speed, not safety.
"""

from __future__ import annotations

import logging
import random
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt import MQTTException

from hedgerow.backoff import Backoff
from registry.hub.inbox import Inbox
from registry.hub.link import Downlink
from registry.hub.link_mqtt import BrokerAddress, MqttLink, new_client

log = logging.getLogger(__name__)

LEASE, LEASE_TTL_S = "ingest", 8.0
TURN_EVERY_S = 2.0
_ANSWER_TIMEOUT_S = 5.0
_KEEPALIVE_S = 30
_UNSUPPORTED = 132  # MQTT 5, reason code 0x84
_RETRY = Backoff(first_s=0.5, cap_s=15.0, immediate_s=0.1)


class SharedLink:
    """See :class:`registry.hub.link.Link`. ``my_turn`` says whether this hub is the one that listens, if only one can.

    ``my_turn`` is called on a thread of this link, every few seconds; what it raises counts as "as before".
    """

    def __init__(
        self, address: BrokerAddress, client_id: str, topic_prefix: str, inbox: Inbox, my_turn: Callable[[], bool]
    ) -> None:
        self._address, self._client_id, self._prefix, self._inbox = address, client_id, topic_prefix, inbox
        self._my_turn = my_turn
        self._link: MqttLink | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shared-link", daemon=True)
        self._thread.start()

    def publish(self, downlink: Downlink) -> None:
        if self._link is not None:
            self._link.publish(downlink)

    def close(self) -> None:
        self._closed.set()
        self._thread.join(_ANSWER_TIMEOUT_S + 1.0)
        if self._link is not None:
            self._link.close()

    def _run(self) -> None:
        shared = self._ask_until_answered()
        if shared is None:
            return
        log.info("The broker %s %s shared subscriptions", self._address.shown, "offers" if shared else "has no")
        self._link = MqttLink(self._address, self._client_id, self._prefix, self._inbox, shared=shared, listening=shared)
        while not shared:
            try:
                self._link.listen(self._my_turn())
            except Exception:
                log.warning("Whose turn it is to listen could not be found out", exc_info=True)
            if self._closed.wait(TURN_EVERY_S):
                return

    def _ask_until_answered(self) -> bool | None:
        """None when closed before."""
        failures = 0
        while not self._closed.is_set():
            offered = ask(self._address, f"{self._client_id}-asks")
            if offered is not None:
                return offered
            log.warning("The broker %s does not answer; trying again", self._address.shown)
            self._closed.wait(_RETRY.delay_s(failures, random.random))
            failures += 1
        return None


def ask(address: BrokerAddress, client_id: str) -> bool | None:
    """Whether the broker offers MQTT 5 with shared subscriptions; None when it is away or lets nobody in."""
    answer: list[bool | None] = []
    client = new_client(client_id, address, version_5=True)

    def on_connect(_client: mqtt.Client, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:  # noqa: ANN401 - paho's signature
        if reason.is_failure:
            answer.append(False if reason.value == _UNSUPPORTED else None)
        else:
            answer.append(getattr(properties, "SharedSubscriptionAvailable", 1) == 1)

    client.on_connect = on_connect
    client.connect_timeout = _ANSWER_TIMEOUT_S
    try:
        client.connect(address.host, address.port, _KEEPALIVE_S)
    except (OSError, ValueError):
        return None
    for _ in range(int(_ANSWER_TIMEOUT_S)):
        if answer:
            break
        # A broker of MQTT 3.1.1 closes the connection, or answers in a way that paho cannot read.
        if _one_look(client) != mqtt.MQTT_ERR_SUCCESS:
            answer = answer or ([False] if _reachable(address) else [None])
    client.disconnect()
    return answer[0] if answer else None


def _one_look(client: mqtt.Client) -> int:
    try:
        return client.loop(timeout=1.0)
    except (MQTTException, ValueError, LookupError, struct.error) as problem:
        log.debug("no MQTT 5: %s", problem)
        return mqtt.MQTT_ERR_PROTOCOL


def _reachable(address: BrokerAddress) -> bool:
    try:
        with socket.create_connection((address.host, address.port), timeout=_ANSWER_TIMEOUT_S):
            return True
    except OSError:
        return False
