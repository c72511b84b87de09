"""The story of the local hub: modules connect with their tokens, hand over telemetry, and get inputs, twins and direct methods.

Runs in the server's thread; what may wait for a disk runs elsewhere (the buffer's writer, ``InputFeeder``) and posts back. A
message is acknowledged when the buffer has committed it, never before; when the buffer cannot take it, nothing is said and the
connection ends, so that the client keeps it and sends it again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from edge_agent.engines.docker_options import HOST_NAME
from edge_agent.errors import NotAModule
from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile.situation import EngineKind
from edge_agent.telemetry.mqtt import incoming, outgoing, topics
from edge_agent.telemetry.mqtt import session as states
from edge_agent.telemetry.mqtt.calls import Calls
from edge_agent.telemetry.mqtt.clients import Batch, Client, Surroundings
from edge_agent.telemetry.mqtt.codec import Connect, Publish
from edge_agent.telemetry.mqtt.inputs import InputFeeder, Item
from edge_agent.telemetry.mqtt.server import Connection, MqttServer
from edge_agent.telemetry.mqtt.session import Closed, Delivered, Event, Message, Opened, Subscribed
from edge_agent.telemetry.mqtt.storing import Storing
from edge_agent.telemetry.mqtt.topics import Heartbeat, Identity, Meaning, MethodAnswer, ReportedTwin, Telemetry
from edge_agent.telemetry.mqtt.twin_side import TwinSide
from edge_agent.telemetry.ports import LOOPBACK
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.message import wrapped
from edge_agent.telemetry.tokens import Tokens
from hedgerow.clock import Clock, unix_ms
from hedgerow.contracts.methods import MAX_PAYLOAD_BYTES
from hedgerow.contracts.names import ENV_MQTT_URL
from hedgerow.contracts.twins import MAX_REPORTED_BYTES
from hedgerow.errors import HedgerowError

# Of one module; a second connection under the same client id ends the first.
CONNECTIONS_MAX = 8
# Topics whose meaning a connection remembers, when they are short: long ones hold properties and do not come again.
TOPICS_REMEMBERED, TOPIC_REMEMBERED_MAX = 256, 128
# Of a packet beside its payload: topic and properties.
HEAD_BYTES = 16 * 1024
log = logging.getLogger(__name__)


class LocalHub:
    """``feeder`` reads what waits for inputs of modules."""

    def __init__(
        self,
        reception: Reception,
        feeder: InputFeeder[Connection],
        tokens: Tokens,
        clock: Clock,
        metrics: Metrics,
        around: Surroundings,
        *,
        max_message_bytes: int,
    ) -> None:
        self._feeder = feeder
        self._tokens = tokens
        self._clock = clock
        self._metrics = metrics
        self._around = around
        self._max_message_bytes = max_message_bytes
        self._server = MqttServer(self, clock, max(max_message_bytes, MAX_PAYLOAD_BYTES, MAX_REPORTED_BYTES) + HEAD_BYTES)
        self._storing = Storing(reception, self._server, clock, metrics)
        self._clients: dict[Connection, Client] = {}
        self._calls = Calls()
        self._twins = TwinSide(self._server, self._storing, metrics, around)
        self.connected = 0

    def start(self, port: int) -> int:
        """Listen on ``port``, or on another when it is 0 or taken; returns the port. Raises OSError when none is free."""
        self._feeder.start(lambda connection, items: self._server.post(lambda: self._deliver(connection, items)))
        return self._server.start(port)

    def also_listen(self, host: str) -> None:
        """Listen on the address by which containers reach this host."""
        self._server.also_listen(host)

    def environment(self, kind: EngineKind) -> dict[str, str]:
        """What a module is told; user name and password are HEDGEROW_MODULE and HEDGEROW_TELEMETRY_TOKEN."""
        return {ENV_MQTT_URL: f"mqtt://{HOST_NAME if kind == 'docker' else LOOPBACK}:{self._server.port}"}

    def close(self) -> None:
        """Say good-bye to every client; what was not acknowledged stays with them."""
        self._server.close()
        self._feeder.close()

    def hurry(self) -> None:
        """Something was stored, perhaps for an input."""
        self._feeder.hurry()

    @property
    def turns(self) -> int:
        """How often the server's thread went round."""
        return self._server.turns

    def wake(self) -> None:
        """Have the server's thread go round once."""
        self._server.post(lambda: None)

    def twins_changed(self) -> None:
        """Another desired state is in force."""
        self._server.post(self._push_twins)

    def call(self, module: str, name: str, payload: str, timeout_s: float) -> tuple[int, str]:
        """Invoke a direct method of a module; waits for ``(status, JSON text)``. Thread-safe.

        404 when the module does not listen for it, 408 when no answer came in time, 413 for a payload above
        MAX_PAYLOAD_BYTES, 429 when too many calls wait for this module.
        """
        if len(payload.encode()) > MAX_PAYLOAD_BYTES:
            return 413, _error(f"the payload is larger than {MAX_PAYLOAD_BYTES} bytes")
        begun = self._calls.begin(module)
        if begun is None:
            return 429, _error(f"module {module} has too many calls to answer")
        request, answer = begun
        try:
            self._server.post(lambda: self._ask(module, name, request, payload))
            return answer.result(timeout_s)
        except TimeoutError:
            return 408, _error(f"module {module} did not answer {name} within {timeout_s:g} s")
        finally:
            self._calls.end(request)

    # What the server calls.

    def admit(self, connection: Connection, packet: Connect) -> int:
        """0 when user name and password are a module's, else MQTT 5's reason code."""
        me = self._identify(packet)
        if me is None:
            self._metrics.count("edgehub_client_connect_failed_total", reason="bad_credentials")
            return states.BAD_CREDENTIALS
        others = [client for client in self._clients.values() if client.me.module == me.module]
        same = [client for client in others if client.connection.session.client_id == packet.client_id]
        if len(others) - len(same) >= CONNECTIONS_MAX:
            self._metrics.count("edgehub_client_connect_failed_total", reason="too_many")
            return states.BUSY
        for client in same:
            self._server.end(client.connection, states.TAKEN_OVER, "another connection has the same client id")
        connection.me = me
        return 0

    def may_read(self, connection: Connection, pattern: str) -> int:
        """0 when the filter is among the module's own topics."""
        return topics.may_read(pattern, connection.me) if connection.me else states.NOT_AUTHORIZED

    def handle(self, connection: Connection, events: list[Event]) -> None:
        """Something happened on a connection."""
        batch: Batch = []
        client = self._clients.get(connection)
        for event in events:
            match event:
                case Message():
                    if client is not None and connection.held is None:
                        self._said(client, event, batch)
                case Delivered(token=token):
                    self._delivered(connection, token)
                case Opened():
                    client = self._opened(connection)
                case Subscribed(filters=filters):
                    self._subscribed(connection, filters)
                case Closed(problem=problem):
                    self._closed(connection, problem)
        if batch and client is not None:
            self._storing.store(client, batch)

    # Who is there.

    def _identify(self, packet: Connect) -> Identity | None:
        """User name: the module's, or IoT Edge's ``HUB/DEVICE/MODULE/?api-version=…``; password: the module's token."""
        try:
            module = self._tokens.module(packet.password.decode())
        except (NotAModule, UnicodeDecodeError):
            return None
        me = Identity(module, self._around.names(module) | {module}, self._around.device_names)
        parts = packet.user.split("/")
        if len(parts) >= 3:
            known = parts[1].lower() in me.device_names and parts[2].lower() in me.module_names
        else:
            known = packet.user.lower() in me.module_names
        return me if known else None

    def _opened(self, connection: Connection) -> Client | None:
        if connection.me is None:
            return None
        client = self._clients[connection] = Client(connection, connection.me)
        self._metrics.count("edgehub_client_connect_success_total", id=client.me.module)
        self.connected = len(self._clients)
        return client

    def _closed(self, connection: Connection, problem: str) -> None:
        client = self._clients.pop(connection, None)
        if client is None:
            log.debug("a client of the local hub was not let in or left: %s", problem)
            return
        self._metrics.count("edgehub_client_disconnect_total", id=client.me.module)
        self.connected = len(self._clients)
        if problem:
            log.info("module %s lost its MQTT connection: %s", client.me.module, problem)
        self._tell_feeder(client.me.module)

    # What modules say.

    def _said(self, client: Client, message: Message, batch: Batch) -> None:
        try:
            meaning = self._meaning(client, message.topic)
            match meaning:
                case Telemetry():
                    self._hand_over(client, meaning, message, batch)
                    return
                case Heartbeat():
                    self._around.on_heartbeat(client.me.module)
                case ReportedTwin(whole=whole):
                    self._twins.report(client, message, whole=whole)
                    return
                case MethodAnswer(request=request, status=status):
                    text, _ = wrapped(message.payload)
                    self._calls.answer(request, client.me.module, status, text)
        except HedgerowError as problem:
            self._storing.refuse(client, message.ticket, problem)
        else:
            client.connection.session.done([message.ticket])

    def _hand_over(self, client: Client, meaning: Telemetry, message: Message, batch: Batch) -> None:
        now_ms = unix_ms(self._clock.now())
        found = incoming.telemetry(client.me.module, meaning, message, now_ms, self._max_message_bytes)
        batch.append((message.ticket, found))

    def _meaning(self, client: Client, topic: str) -> Meaning:
        meaning = client.meanings.get(topic)
        if meaning is None:
            meaning = topics.meaning(topic, client.me)
            if len(client.meanings) < TOPICS_REMEMBERED and len(topic) <= TOPIC_REMEMBERED_MAX:
                client.meanings[topic] = meaning
        return meaning

    # To the modules.

    def _subscribed(self, connection: Connection, filters: tuple[str, ...]) -> None:
        client = self._clients.get(connection)
        if client is None:
            return
        self._twins.subscribed(client, filters)
        self._tell_feeder(client.me.module)

    def _tell_feeder(self, module: str) -> None:
        newest_first = [client for client in reversed(self._clients.values()) if client.me.module == module]
        self._feeder.want(module, [(client.connection, dict(client.patterns)) for client in newest_first if client.patterns])

    def _delivered(self, connection: Connection, token: object) -> None:
        client = self._clients.get(connection)
        if client is None:
            return
        if isinstance(token, Item):
            self._delivered_item(client.me.module, token)
        else:
            self._feeder.hurry()  # there may have been no room before
        if client.twin_due:
            self._twins.push(client)

    def _delivered_item(self, module: str, item: Item[Connection]) -> None:
        labels = {"from": item.delivery.source, "from_route_output": item.delivery.output or ""}
        self._metrics.count("edgehub_messages_sent_total", 1.0, to=module, to_route_input=item.input, **labels)
        self._feeder.delivered(item)

    def _deliver(self, connection: Connection, items: Sequence[Item[Connection]]) -> None:
        """Messages for inputs; what does not fit is told back, and everything after it, so that the order stays."""
        client = self._clients.get(connection)
        if client is None:
            return
        for item in items:
            if item.overtakes:
                continue
            place = topics.input_topic(client.patterns, item.input)
            packet = None if place is None else outgoing.input_message(place, item, self._around.device)
            outcome = "full" if packet is None else connection.session.deliver(packet, item)
            if outcome == "full":  # or unsubscribed meanwhile
                self._feeder.not_taken(item)
                break
            if outcome == "too-large":
                log.warning("module %s takes no message as large as the next one for %s", client.me.module, item.input)
                self._feeder.delivered(item)
            elif outcome == "delivered":
                self._delivered_item(client.me.module, item)
        self._server.flush(connection)

    def _push_twins(self) -> None:
        for client in list(self._clients.values()):
            self._twins.push(client)
            self._server.flush(client.connection)

    def _ask(self, module: str, name: str, request: str, payload: str) -> None:
        """Send a direct method to the newest connection of a module that listens for it."""
        topic = f"methods/{name}/{request}"
        for client in reversed(list(self._clients.values())):
            qos = topics.subscribed(client.patterns, topic) if client.me.module == module else None
            if qos is None:
                continue
            outcome = client.connection.session.deliver(Publish(topic, payload.encode(), qos), None)
            self._server.flush(client.connection)
            if outcome in ("full", "too-large"):
                self._calls.answer(request, module, 503, _error(f"module {module} does not take {name} now"))
            return
        self._calls.answer(request, module, 404, _error(f"module {module} does not listen for method {name}"))


def _error(text: str) -> str:
    return json.dumps({"error": text})
