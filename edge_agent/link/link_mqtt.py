"""The link over MQTT 3.1.1 (paho-mqtt): QoS 1, clean sessions, a new client for each connection.

A new client object each time, because paho would otherwise keep unacknowledged messages in memory and send them again on
its own: the buffer on the disk is the only place where messages wait.
"""

from __future__ import annotations

import logging
import random
import secrets
import ssl
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.link.link import LinkListener
from hedgerow.backoff import Backoff
from hedgerow.contracts.broker_login import Login
from hedgerow.errors import InvalidSetting

if TYPE_CHECKING:
    from edge_agent.link.certificate import ClientCertificate

# A connection that only this end believes in is found out after at most twice this: a ping after so long without a word, and so
# long again for its answer. With the way back that is well below twice the longest pause (``RETRY``). Shorter than the five tries
# that TCP makes in this time on a line with 600 ms delay, it would end connections that are only slow.
KEEPALIVE_S = 15
CONNECT_TIMEOUT_S = 10.0
CLOSE_PATIENCE_S = 1.0
UNSENT_MAX = 32
PORTS = {"mqtt": 1883, "mqtts": 8883}
# Reason codes of MQTT 5, as paho shows 3.1.1's too: bad user name or password, not authorized.
_LOGIN_REFUSED = (134, 135)
RETRY = Backoff(first_s=1.0, factor=2.0, cap_s=25.0, immediate_s=0.2)
log = logging.getLogger(__name__)


class LoginSource(Protocol):
    """Logins that may change between connections."""

    def current(self) -> Login:
        """For the next connection."""

    def refused(self) -> None:
        """The broker did not take that one."""


class MqttLink:
    """``url`` is ``mqtt://[USER:PASSWORD@]HOST[:PORT]`` or ``mqtts://…``; ``login`` is used instead of the URL's.

    ``authority`` is a certificate (PEM) that the broker's must descend from; empty: the system's authorities.
    ``certificate`` is the device's own, without which no connection is made; a new one is used at once, in a new connection.

    ``client_id`` gets a random end, so that a copied device cannot throw the original out at the broker: the hub's session lease
    decides between them.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        login: Login | LoginSource | None = None,
        authority: str = "",
        certificate: ClientCertificate | None = None,
    ) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in PORTS or not self._url.hostname:
            shown = self._url._replace(netloc=self._url.netloc.rpartition("@")[2]).geturl()
            problem = "use mqtt://HOST:PORT or mqtts://HOST:PORT"
            raise InvalidSetting(name="broker_url", value=shown, problem=problem, source="device.toml")
        self._client_id = f"{client_id}-{secrets.token_hex(4)}"
        parts = self._url
        own = Login(unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._login = login or own
        self._authority = authority
        self._certificate = certificate
        self._client: mqtt.Client | None = None
        self._ready = False
        self._stopped = threading.Event()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, listener: LinkListener, topics: Sequence[str]) -> None:
        if self._certificate is not None:
            self._certificate.on_new = self._connect_again
        self._thread = threading.Thread(target=self._keep_connected, args=(listener, list(topics)), name="link", daemon=True)
        self._thread.start()

    def publish(self, topic: str, payload: bytes) -> bool:
        client = self._client
        if client is None or not self._ready:
            return False
        return client.publish(topic, payload, qos=1).rc == mqtt.MQTT_ERR_SUCCESS

    def _connect_again(self) -> None:
        self._hurry.set()
        client = self._client
        if client is not None and not self._stopped.is_set():
            client.disconnect()

    def close(self) -> None:
        self._stopped.set()
        self._hurry.set()
        client = self._client
        if client is not None:
            client.disconnect()
        if self._thread is not None:
            # A connection attempt under way is left to the end of the process.
            self._thread.join(CLOSE_PATIENCE_S)

    def _keep_connected(self, listener: LinkListener, topics: list[str]) -> None:
        failures = 0
        while not self._stopped.is_set():
            problem, was_ready = self._one_connection(listener, topics)
            if self._stopped.is_set():
                return
            listener.on_disconnected(problem)
            failures = 0 if was_ready else failures + 1
            delay_s = RETRY.delay_s(failures, random.random)
            log.info("no connection to the broker (%s), next try in %.1f s", problem, delay_s)
            self._hurry.wait(delay_s)
            self._hurry.clear()

    def _one_connection(self, listener: LinkListener, topics: list[str]) -> tuple[str, bool]:
        """Connect and stay; returns why it ended, and whether it had been usable."""
        ended = _Ended()
        reached = False
        try:
            client = self._new_client(listener, topics, ended)
            client.connect(self._url.hostname or "", self._url.port or PORTS[self._url.scheme], keepalive=KEEPALIVE_S)
            reached = True
            self._client = client
            if self._stopped.is_set():  # close() may have looked for a client before there was one
                client.disconnect()
            client.loop_forever(retry_first_connection=False)
        except ssl.SSLError as problem:
            # With TLS 1.2 a certificate is refused while the connection is made, later with 1.3.
            reached = not isinstance(problem, ssl.SSLCertVerificationError)
            ended.reason = str(problem)
        except OSError as problem:
            ended.reason = str(problem) or type(problem).__name__
        except Exception as problem:
            # Whatever a broker can make the library raise: the connection is lost, the link is not.
            log.exception("the connection to the broker failed unexpectedly")
            ended.reason = f"{type(problem).__name__}: {problem}"
        if self._certificate is not None and reached and not self._stopped.is_set():
            self._certificate.met(answered=ended.answered)
        was_ready, self._ready, self._client = self._ready, False, None
        return ended.reason, was_ready

    def _log_in(self, client: mqtt.Client) -> None:
        login = self._login if self._login is None or isinstance(self._login, Login) else self._login.current()
        if login is not None:
            client.username_pw_set(login.user, login.password)

    def _note_refused(self, reason: int) -> None:
        if reason in _LOGIN_REFUSED and self._login is not None and not isinstance(self._login, Login):
            self._login.refused()

    def _new_client(self, listener: LinkListener, topics: list[str], ended: _Ended) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=True,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(UNSENT_MAX)
        client.max_queued_messages_set(UNSENT_MAX)
        self._log_in(client)
        if self._url.scheme == "mqtts":
            context = ssl.create_default_context(cadata=self._authority or None)
            if self._certificate is not None and not self._certificate.load_into(context):
                raise ConnectionError("there is no certificate of this device yet")
            client.tls_set_context(context)

        def on_connect(client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:  # noqa: ANN401 - paho's signature
            ended.answered = True
            if reason.is_failure:
                hint = ": was this device revoked or deleted?" if reason.value in _LOGIN_REFUSED else ""
                ended.reason, ended.refused = f"the broker refused: {reason}{hint}", True
                self._note_refused(reason.value)
                client.disconnect()
                return
            client.subscribe([(topic, 1) for topic in topics])

        def on_subscribe(client: mqtt.Client, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:  # noqa: ANN401 - paho's signature
            if any(reason.is_failure for reason in reasons):
                ended.reason = "the broker refused the subscription"
                client.disconnect()
                return
            self._ready = True
            listener.on_connected()

        def on_disconnect(_client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:  # noqa: ANN401 - paho's signature
            self._ready = False
            # Whoever refused may well close the connection before we do: that is not why it ended.
            ended.reason = ended.reason if reason == 0 or ended.refused else str(reason)

        client.on_connect = on_connect
        client.on_subscribe = on_subscribe
        client.on_disconnect = on_disconnect
        client.on_message = lambda _client, _data, message: listener.on_message(message.topic, bytes(message.payload))
        return client


class _Ended:
    """Why a connection ended, as its callbacks learn it."""

    reason = "the connection was closed"
    answered = False
    refused = False
