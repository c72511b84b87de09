"""The server's state machine of one MQTT connection, pure: bytes and times in, events out, and ``take_output`` says what to send.

Theory of operation. A connection is ``new`` until its CONNECT was answered, then ``open``, at last ``closed``; nothing is
read after an error. What the client publishes becomes a ``Message`` event with a ticket; whoever handles it says ``done``
when it is durable, and only then is it acknowledged, in the order of arrival (3.1.1 section 4.6). A QoS 2 message is stored at
its PUBREC; until its PUBREL the same packet id is the same message. What the server publishes takes a packet id, and is
``Delivered`` at its PUBACK. A session ends with its connection: CONNACK never says that one was present, so a client sends
again what it has no acknowledgement of, on a new connection (at least once).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from edge_agent.errors import MqttProtocolError
from edge_agent.telemetry.mqtt import codec
from edge_agent.telemetry.mqtt import properties as p
from edge_agent.telemetry.mqtt.codec import Ack, Connect, Disconnect, Packet, Ping, Publish, Subscribe, Unsubscribe

BAD_CREDENTIALS, BUSY, TAKEN_OVER, KEEP_ALIVE, SHUTTING_DOWN, QUOTA = 0x86, 0x97, 0x8E, 0x8D, 0x8B, 0x97
NOT_AUTHORIZED, RECEIVE_MAX_EXCEEDED, SHARED_REFUSED = 0x87, 0x93, 0x9E
# Before a client has said who it is, and after.
FIRST_PACKET_MAX = 4096
CONNECT_WITHIN_S = 10.0
UNFINISHED_MAX_S = 60.0
# Messages of a client that may wait for a commit, told to MQTT 5 clients; a 3.1.1 client is read no further meanwhile.
RECEIVE_MAX = 2000
# QoS 2 messages whose PUBREL has not come.
QOS2_MAX = 10_000
# Messages to a client that may wait for its PUBACK.
WINDOW = 64
CLIENT_ID_MAX = 256
_CONNECT_BYTE = b"\x10"
SUBSCRIPTIONS_MAX = 128


class Opened(msgspec.Struct, frozen=True):
    """The client is let in."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """Something was published. ``done(ticket)`` is due when it is durable; ticket 0 (QoS 0, wills) expects none."""

    topic: str
    payload: bytes
    user: tuple[tuple[str, str], ...]
    ticket: int
    dup: bool


class Subscribed(msgspec.Struct, frozen=True):
    """These filters are new; an empty event follows an UNSUBSCRIBE."""

    filters: tuple[str, ...]


class Delivered(msgspec.Struct, frozen=True):
    """The client has what was delivered under ``token``."""

    token: object


class Closed(msgspec.Struct, frozen=True):
    """The connection is to be closed when the output was sent. ``problem`` is empty for an orderly end."""

    problem: str


Event = Opened | Message | Subscribed | Delivered | Closed
DeliveryOutcome = Literal["sent", "delivered", "full", "too-large"]


@dataclass(slots=True)
class _Owed:
    """An acknowledgement that waits for its turn."""

    ticket: int
    kind: int
    packet_id: int
    reason: int | None = None


class Session:
    """``admit`` looks at a CONNECT and gives 0, or MQTT 5's reason code of the refusal; ``may_read`` judges a topic filter."""

    def __init__(
        self,
        max_packet: int,
        admit: Callable[[Connect], int],
        may_read: Callable[[str], int],
        now_s: float,
        assigned_id: str = "hedgerow",
    ) -> None:
        self._decoder = codec.Decoder(FIRST_PACKET_MAX)
        self._max_packet = max_packet
        self._admit = admit
        self._may_read = may_read
        self._assigned_id = assigned_id
        self.state: str = "new"
        self.client_id = ""
        self.subscriptions: dict[str, int] = {}
        self._version = codec.V3
        self._keep_alive_s = 0
        self._heard_s = now_s
        self._will: Publish | None = None
        self._output: list[bytes] = []
        self._owed: deque[_Owed] = deque()
        self._by_ticket: dict[int, _Owed] = {}
        self._tickets = 0
        self._qos2: dict[int, bool] = {}
        self._unacked: dict[int, object] = {}
        self._window = WINDOW
        self._client_packet_max = 2**28
        self._packet_id = 0

    @property
    def owed(self) -> int:
        """Messages that are not acknowledged yet."""
        return len(self._owed)

    @property
    def window_left(self) -> int:
        """Deliveries that would be taken now."""
        return self._window - len(self._unacked) if self.state == "open" else 0

    def take_output(self) -> bytes:
        """What is to be sent."""
        if not self._output:
            return b""
        output, self._output = b"".join(self._output), []
        return output

    def receive(self, data: bytes, now_s: float) -> list[Event]:
        """Bytes have come. After a ``Closed`` nothing more is read."""
        events: list[Event] = []
        if self.state == "closed":
            return events
        try:
            if self.state == "new" and not self._decoder.unfinished and data[:1] != _CONNECT_BYTE:
                raise MqttProtocolError(problem="it does not begin with CONNECT", code=p.PROTOCOL_ERROR)
            self._decoder.feed(data)
            while self.state != "closed" and (packet := self._decoder.next()) is not None:
                self._heard_s = now_s
                if type(packet) is Publish and self.state == "open":
                    self._published(packet, events)
                else:
                    self._handle(packet, events)
        except MqttProtocolError as problem:
            self._break_off(problem, events)
        return events

    def done(self, tickets: list[int], reason: int = 0) -> None:
        """These messages are durable (or, with MQTT 5 and ``reason``, refused for good): acknowledge what is next in turn."""
        for ticket in tickets:
            owed = self._by_ticket.pop(ticket, None)
            if owed is not None:
                owed.reason = reason
        while self._owed and (reason_or_none := self._owed[0].reason) is not None:
            owed = self._owed.popleft()
            if owed.kind == codec.PUBREC and reason_or_none:
                self._qos2.pop(owed.packet_id, None)
            elif owed.kind == codec.PUBREC:
                self._qos2[owed.packet_id] = True
            self._output.append(codec.ack(self._version, owed.kind, owed.packet_id, reason_or_none))

    @property
    def can_refuse(self) -> bool:
        """Whether a single message can be refused (MQTT 5); 3.1.1 knows only the end of the connection (section 3.3.5)."""
        return self._version == codec.V5

    def deliver(self, packet: Publish, token: object) -> DeliveryOutcome:
        """Send a message to the client, under a new packet id with QoS 1; ``packet.qos`` is what was granted, at most 1."""
        if self.window_left <= 0:
            return "full"
        if packet.qos:
            packet = msgspec.structs.replace(packet, packet_id=self._next_packet_id())
        data = codec.publish(self._version, packet)
        if len(data) > self._client_packet_max:
            return "too-large"
        self._output.append(data)
        if not packet.qos:
            return "delivered"
        self._unacked[packet.packet_id] = token
        return "sent"

    def overdue(self, now_s: float) -> str:
        """Why the client is to be given up by now: no CONNECT, a silence above 1.5 keep alives (section 3.1.2.10); else ""."""
        silent_s = now_s - self._heard_s
        if self.state == "new":
            return "it did not connect in time" if silent_s > CONNECT_WITHIN_S else ""
        if self._keep_alive_s and silent_s > 1.5 * self._keep_alive_s:
            return "it was silent for longer than its keep alive"
        return "it did not finish a packet" if self._decoder.unfinished and silent_s > UNFINISHED_MAX_S else ""

    def not_heard_by_us(self, now_s: float) -> None:
        """The connection was not read for a while: its silence is no fault of the client."""
        self._heard_s = now_s

    def end(self, code: int, problem: str) -> list[Event]:
        """The server ends the connection; a will is published (section 3.1.2.5)."""
        if self.state == "closed":
            return []
        if self.state == "open":
            self._output.append(codec.disconnect(self._version, code, problem))
        return self._closed(problem)

    def lost(self) -> list[Event]:
        """The connection broke."""
        return [] if self.state == "closed" else self._closed("the connection was lost")

    def _closed(self, problem: str) -> list[Event]:
        self.state = "closed"
        events: list[Event] = []
        if self._will is not None and problem:
            events.append(Message(self._will.topic, self._will.payload, self._will.user, 0, False))
        self._will = None
        self._owed.clear()
        self._by_ticket.clear()
        return [*events, Closed(problem)]

    def _break_off(self, problem: MqttProtocolError, events: list[Event]) -> None:
        code = problem.fields.get("code", p.PROTOCOL_ERROR)
        assert isinstance(code, int)  # noqa: S101 - our own errors give ints
        if self.state == "new":
            self._output.append(codec.connack(self._decoder.version or codec.V3, code))
        events += self.end(code, str(problem.fields["problem"]))

    def _handle(self, packet: Packet, events: list[Event]) -> None:
        if isinstance(packet, Connect) == (self.state == "open"):
            raise MqttProtocolError(problem="CONNECT must come first, and once", code=p.PROTOCOL_ERROR)
        match packet:
            case Connect():
                self._connect(packet, events)
            case Ack():
                self._acknowledged(packet, events)
            case Subscribe():
                self._subscribe(packet, events)
            case Unsubscribe():
                known = [0 if self.subscriptions.pop(pattern, None) is not None else 0x11 for pattern in packet.filters]
                self._output.append(codec.unsuback(self._version, packet.packet_id, known))
                events.append(Subscribed(()))
            case Ping():
                self._output.append(codec.pingresp())
            case Disconnect():
                events += self._closed("it asked for its will" if packet.with_will else "")

    def _connect(self, packet: Connect, events: list[Event]) -> None:
        self._version = packet.version
        assigned = not packet.client_id
        if len(packet.client_id) > CLIENT_ID_MAX or (assigned and not packet.clean and packet.version == codec.V3):
            code = 0x85
        else:
            code = self._admit(packet)
        if code:
            self._output.append(codec.connack(packet.version, code))
            events += self.end(code, "it was not let in")
            return
        self.client_id = packet.client_id or self._assigned_id
        self._keep_alive_s = packet.keep_alive_s
        self._will = packet.will
        self._window = min(WINDOW, packet.receive_max)
        self._client_packet_max = packet.max_packet
        self._decoder.limit = self._max_packet
        self.state = "open"
        told: dict[int, int | str] = {
            p.SESSION_EXPIRY: 0,
            p.RECEIVE_MAX: RECEIVE_MAX,
            p.RETAIN_AVAILABLE: 0,
            p.MAX_PACKET: self._max_packet + codec.HEAD_MAX,
            p.SUBSCRIPTION_IDS: 0,
            p.SHARED: 0,
        }
        if assigned:
            told[p.ASSIGNED_CLIENT] = self._assigned_id
        self._output.append(codec.connack(packet.version, 0, told))
        events.append(Opened())

    def _published(self, packet: Publish, events: list[Event]) -> None:
        ticket = 0
        if packet.qos:
            if len(self._owed) > RECEIVE_MAX and self._version == codec.V5:
                raise MqttProtocolError(problem="more messages at once than were granted", code=RECEIVE_MAX_EXCEEDED)
            if packet.qos == 2 and self._repeats_qos2(packet.packet_id):
                return
            self._tickets = ticket = self._tickets + 1
            owed = _Owed(ticket, codec.PUBACK if packet.qos == 1 else codec.PUBREC, packet.packet_id)
            self._owed.append(owed)
            self._by_ticket[ticket] = owed
        events.append(Message(packet.topic, packet.payload, packet.user, ticket, packet.dup))

    def _repeats_qos2(self, packet_id: int) -> bool:
        """Whether this QoS 2 message came before (section 4.3.3); its PUBREC is repeated once it was due."""
        stored = self._qos2.get(packet_id)
        if stored:
            self._output.append(codec.ack(self._version, codec.PUBREC, packet_id))
        elif stored is None:
            if len(self._qos2) >= QOS2_MAX:
                raise MqttProtocolError(problem="too many QoS 2 messages without PUBREL", code=RECEIVE_MAX_EXCEEDED)
            self._qos2[packet_id] = False
        return stored is not None

    def _acknowledged(self, packet: Ack, events: list[Event]) -> None:
        if packet.kind == codec.PUBREL:
            known = self._qos2.pop(packet.packet_id, None) is not None
            self._output.append(codec.ack(self._version, codec.PUBCOMP, packet.packet_id, 0 if known else 0x92))
        elif packet.kind == codec.PUBACK and packet.packet_id in self._unacked:
            events.append(Delivered(self._unacked.pop(packet.packet_id)))
        elif packet.kind != codec.PUBACK:
            raise MqttProtocolError(problem="an answer to QoS 2, which was not used", code=p.PROTOCOL_ERROR)

    def _subscribe(self, packet: Subscribe, events: list[Event]) -> None:
        codes, granted = [], []
        for pattern, qos in packet.filters:
            refused = self._may_read(pattern)
            if not refused and len(self.subscriptions) >= SUBSCRIPTIONS_MAX and pattern not in self.subscriptions:
                refused = BUSY
            if not refused:
                self.subscriptions[pattern] = min(qos, 1)
                granted.append(pattern)
            codes.append(refused or min(qos, 1))
        self._output.append(codec.suback(self._version, packet.packet_id, codes))
        if granted:
            events.append(Subscribed(tuple(granted)))

    def _next_packet_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % 65535 + 1
            if self._packet_id not in self._unacked:
                return self._packet_id
