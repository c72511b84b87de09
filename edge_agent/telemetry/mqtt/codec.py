"""MQTT packets as values: bytes in, packets out, and the bytes of what a server says. No sockets, no clock; state: a buffer.

MQTT 3.1.1 (OASIS mqtt-v3.1.1-os; sections named below without more are its) and MQTT 5 (mqtt-v5.0-os). Every byte is hostile
until it was read: a packet's size is checked when its length is known, before its body has arrived, and whatever is wrong
raises ``MqttProtocolError`` and nothing else.
"""

from __future__ import annotations

import struct

import msgspec

from edge_agent.errors import MqttProtocolError
from edge_agent.telemetry.mqtt import properties as p
from edge_agent.telemetry.mqtt.properties import MALFORMED, PROTOCOL_ERROR, TOO_LARGE, Cursor, Properties, as_text

V3, V5 = 4, 5
CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 5, 6, 7, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 10, 11, 12, 13, 14, 15
FILTERS_MAX = 64
# The first byte and the length of a packet.
HEAD_MAX = 5
# Flags that a client must set in the first byte (section 2.2.2); PUBLISH has flags of its own.
_FLAGS = {PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}
_LENGTH_BYTES = 4
_CONNECT_PROPERTIES = frozenset(
    {p.SESSION_EXPIRY, p.RECEIVE_MAX, p.MAX_PACKET, p.TOPIC_ALIAS_MAX, p.RESPONSE_INFO, p.PROBLEM_INFO, p.USER}
    | {p.AUTH_METHOD, p.AUTH_DATA}
)
_WILL_PROPERTIES = frozenset({p.WILL_DELAY, p.FORMAT, p.EXPIRY, p.CONTENT_TYPE, p.RESPONSE_TOPIC, p.CORRELATION, p.USER})
_PUBLISH_PROPERTIES = frozenset({p.FORMAT, p.EXPIRY, p.TOPIC_ALIAS, p.RESPONSE_TOPIC, p.CORRELATION, p.USER, p.CONTENT_TYPE})
_ACK_PROPERTIES = frozenset({p.REASON, p.USER})
_SUBSCRIBE_PROPERTIES = frozenset({p.SUBSCRIPTION_ID, p.USER})
_DISCONNECT_PROPERTIES = frozenset({p.SESSION_EXPIRY, p.REASON, p.USER})
_UNKNOWN_VERSION = 0x84


class Publish(msgspec.Struct, frozen=True, gc=False):
    """PUBLISH (section 3.3). ``user`` are MQTT 5's user properties; ``packet_id`` is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    dup: bool = False
    retain: bool = False
    user: tuple[tuple[str, str], ...] = ()


class Connect(msgspec.Struct, frozen=True):
    """CONNECT (section 3.1). ``keep_alive_s`` 0: none. The maxima are what the client takes."""

    version: int
    client_id: str
    clean: bool
    keep_alive_s: int
    user: str = ""
    password: bytes = b""
    will: Publish | None = None
    receive_max: int = 65535
    max_packet: int = 2**28


class Ack(msgspec.Struct, frozen=True, gc=False):
    """PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7), told apart by ``kind``."""

    kind: int
    packet_id: int
    reason: int = 0


class Subscribe(msgspec.Struct, frozen=True):
    """SUBSCRIBE (section 3.8): filters with the QoS that was asked for."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


class Unsubscribe(msgspec.Struct, frozen=True):
    """UNSUBSCRIBE (section 3.10)."""

    packet_id: int
    filters: tuple[str, ...]


class Ping(msgspec.Struct, frozen=True):
    """PINGREQ (section 3.12)."""


class Disconnect(msgspec.Struct, frozen=True):
    """DISCONNECT (section 3.14). ``with_will`` (5.0): the will is to be published all the same."""

    with_will: bool = False


Packet = Connect | Publish | Ack | Subscribe | Unsubscribe | Ping | Disconnect


class Decoder:
    """Cuts a stream of bytes into packets. ``limit`` is the largest packet taken; the version comes with CONNECT.

    Use: ``feed`` what arrived, then ``next`` until it gives None. Bytes of an unfinished packet wait here, never more than
    ``limit`` of them and what one ``feed`` brought.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.version = 0
        self._data = b""
        self._at = 0
        self._waiting = bytearray()
        self._needed = 0

    @property
    def unfinished(self) -> bool:
        """Whether part of a packet waits for the rest."""
        return bool(self._waiting)

    def feed(self, data: bytes) -> None:
        """Add what arrived; everything that was fed before must have been taken with ``next``."""
        if self._waiting:
            self._waiting += data
            if len(self._waiting) < self._needed:
                return
            data = bytes(self._waiting)
            self._waiting.clear()
        self._data, self._at = data, 0

    def next(self) -> Packet | None:
        """The next whole packet, None when there is none yet. Raises MqttProtocolError; then nothing more can be read."""
        data, at = self._data, self._at
        size, length_bytes, available = 0, 0, len(data) - at - 1
        while True:
            if length_bytes >= available:
                self._wait(length_bytes + 2)
                return None
            byte = data[at + 1 + length_bytes]
            size |= (byte & 0x7F) << (7 * length_bytes)
            length_bytes += 1
            if byte < 0x80:
                break
            if length_bytes == _LENGTH_BYTES:
                raise MqttProtocolError(problem="its remaining length has more than four bytes", code=MALFORMED)
        if size > self.limit:
            problem = f"a packet of {size} bytes, at most {self.limit} are taken"
            raise MqttProtocolError(problem=problem, code=TOO_LARGE)
        begin = at + 1 + length_bytes
        end = begin + size
        if end > len(data):
            self._wait(end - at)
            return None
        self._at = end
        first = data[at]
        if first >> 4 == PUBLISH:
            return self._publish(first, data, begin, end)
        return self._other(first, Cursor(data, begin, end))

    def _wait(self, needed: int) -> None:
        if self._at < len(self._data):
            self._waiting += self._data[self._at :]
            self._needed = needed
        self._data, self._at = b"", 0

    def _publish(self, first: int, data: bytes, at: int, end: int) -> Publish:
        """The packet that comes by the thousand: read in place."""
        qos = first >> 1 & 3
        topic_end = at + 2 + (data[at] << 8 | data[at + 1]) if end - at >= 2 else end + 1
        body = topic_end + 2 if qos else topic_end
        if body > end:
            raise MqttProtocolError(problem="a PUBLISH ended inside one of its fields", code=MALFORMED)
        topic = as_text(data[at + 2 : topic_end])
        packet_id = data[topic_end] << 8 | data[topic_end + 1] if qos else 0
        if qos == 3 or (qos == 0 and first & 8) or (qos and not packet_id):
            raise MqttProtocolError(problem="a PUBLISH with a QoS, DUP flag or packet id that cannot be", code=MALFORMED)
        user: tuple[tuple[str, str], ...] = ()
        if self.version == V5:
            cursor = Cursor(data, body, end)
            user = _publish_properties(cursor)
            body = end - cursor.left
        if not topic or "+" in topic or "#" in topic:
            raise MqttProtocolError(problem=f"{topic[:80]!r} cannot be published to", code=PROTOCOL_ERROR)
        return Publish(topic, data[body:end], qos, packet_id, bool(first & 8), bool(first & 1), user)

    def _other(self, first: int, cursor: Cursor) -> Packet:
        kind = first >> 4
        if first & 15 != _FLAGS.get(kind, 0):
            raise MqttProtocolError(problem=f"packet kind {kind} with flags {first & 15}", code=MALFORMED)
        packet = self._read(kind, cursor)
        if cursor.left:
            raise MqttProtocolError(problem=f"packet kind {kind} has {cursor.left} bytes too many", code=MALFORMED)
        return packet

    def _read(self, kind: int, cursor: Cursor) -> Packet:
        match kind:
            case 1:
                packet = _connect(cursor)
                self.version = packet.version
                return packet
            case 4 | 5 | 6 | 7:
                return _ack(kind, cursor, self.version)
            case 8:
                return _subscribe(cursor, self.version)
            case 10:
                return _unsubscribe(cursor, self.version)
            case 12:
                return Ping()
            case 14:
                return _disconnect(cursor, self.version)
        raise MqttProtocolError(problem=f"packet kind {kind} is not one that a client sends", code=PROTOCOL_ERROR)


def _publish_properties(cursor: Cursor) -> tuple[tuple[str, str], ...]:
    found = p.read_properties(cursor, _PUBLISH_PROPERTIES)
    if p.TOPIC_ALIAS in found.values:
        # None were offered (5.0 section 3.2.2.3.8).
        raise MqttProtocolError(problem="a topic alias, which was not offered", code=0x94)
    return tuple(found.user)


def _connect(cursor: Cursor) -> Connect:
    name, version = cursor.binary(), cursor.number(1)
    if name != b"MQTT" or version not in (V3, V5):
        problem = f"protocol {name[:20]!r} version {version}, use MQTT 3.1.1 (4) or 5"
        raise MqttProtocolError(problem=problem, code=_UNKNOWN_VERSION)
    flags, keep_alive_s = cursor.number(1), cursor.number(2)
    if flags & 1 or (not flags & 4 and flags & 0x38) or flags & 0x18 == 0x18:
        raise MqttProtocolError(problem=f"a CONNECT with flags {flags:#x}", code=MALFORMED)
    found = p.read_properties(cursor, _CONNECT_PROPERTIES) if version == V5 else Properties()
    if p.AUTH_METHOD in found.values:
        raise MqttProtocolError(problem="an authentication method; use user name and password", code=0x8C)
    client_id = cursor.text()
    will = _will(cursor, flags, version) if flags & 4 else None
    user = cursor.text() if flags & 0x80 else ""
    password = cursor.binary() if flags & 0x40 else b""
    receive_max, max_packet = found.number(p.RECEIVE_MAX, 65535), found.number(p.MAX_PACKET, 2**28)
    if not receive_max or not max_packet:
        raise MqttProtocolError(problem="a CONNECT that takes nothing", code=PROTOCOL_ERROR)
    return Connect(version, client_id, bool(flags & 2), keep_alive_s, user, password, will, receive_max, max_packet)


def _will(cursor: Cursor, flags: int, version: int) -> Publish:
    found = p.read_properties(cursor, _WILL_PROPERTIES) if version == V5 else Properties()
    topic = cursor.text()
    if not topic or "+" in topic or "#" in topic:
        raise MqttProtocolError(problem=f"{topic[:80]!r} cannot be published to", code=PROTOCOL_ERROR)
    return Publish(topic, cursor.binary(), flags >> 3 & 3, retain=bool(flags & 0x20), user=tuple(found.user))


def _packet_id(cursor: Cursor) -> int:
    packet_id = cursor.number(2)
    if not packet_id:
        raise MqttProtocolError(problem="packet id 0", code=MALFORMED)
    return packet_id


def _ack(kind: int, cursor: Cursor, version: int) -> Ack:
    packet_id, reason = _packet_id(cursor), 0
    if version == V5 and cursor.left:
        reason = cursor.number(1)
        if cursor.left:
            p.read_properties(cursor, _ACK_PROPERTIES)
    return Ack(kind, packet_id, reason)


def _subscribe(cursor: Cursor, version: int) -> Subscribe:
    packet_id = _packet_id(cursor)
    if version == V5:
        p.read_properties(cursor, _SUBSCRIBE_PROPERTIES)
    filters: list[tuple[str, int]] = []
    while cursor.left and len(filters) < FILTERS_MAX:
        pattern, options = cursor.text(), cursor.number(1)
        if options & 3 == 3 or options & (0xC0 if version == V5 else 0xFC):
            raise MqttProtocolError(problem=f"a subscription with options {options:#x}", code=MALFORMED)
        filters.append((check_filter(pattern), options & 3))
    if not filters:
        raise MqttProtocolError(problem="a SUBSCRIBE without a filter", code=PROTOCOL_ERROR)
    return Subscribe(packet_id, tuple(filters))


def _unsubscribe(cursor: Cursor, version: int) -> Unsubscribe:
    packet_id = _packet_id(cursor)
    if version == V5:
        p.read_properties(cursor, frozenset({p.USER}))
    filters: list[str] = []
    while cursor.left and len(filters) < FILTERS_MAX:
        filters.append(check_filter(cursor.text()))
    if not filters:
        raise MqttProtocolError(problem="an UNSUBSCRIBE without a filter", code=PROTOCOL_ERROR)
    return Unsubscribe(packet_id, tuple(filters))


def _disconnect(cursor: Cursor, version: int) -> Disconnect:
    if version != V5 or not cursor.left:
        return Disconnect()
    reason = cursor.number(1)
    if cursor.left:
        p.read_properties(cursor, _DISCONNECT_PROPERTIES)
    return Disconnect(with_will=reason != 0)


def check_filter(pattern: str) -> str:
    """``pattern`` when it is a topic filter (section 4.7.1), else MqttProtocolError."""
    levels = pattern.split("/")
    misplaced = any(("#" in level or "+" in level) and len(level) > 1 for level in levels) or "#" in levels[:-1]
    if not pattern or misplaced:
        raise MqttProtocolError(problem=f"{pattern[:80]!r} is not a topic filter", code=0x8F)
    return pattern


def filter_matches(pattern: str, topic: str) -> bool:
    """Whether ``topic`` is among those of filter ``pattern`` (section 4.7)."""
    wanted, levels = pattern.split("/"), topic.split("/")
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(levels) or level not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)


_CONNACK_V3 = {0: 0, 0x84: 1, 0x85: 2, 0x88: 3, 0x97: 3, 0x9F: 3, 0x86: 4, 0x87: 5}


def connack(version: int, code: int, told: dict[int, int | str] | None = None) -> bytes:
    """CONNACK (section 3.2), never with a session present. ``code`` is MQTT 5's; 3.1.1 gets its own for it."""
    if version == V5:
        return _framed(CONNACK, bytes([0, code]) + p.write_properties(told or {}))
    return bytes([CONNACK << 4, 2, 0, _CONNACK_V3.get(code, 5)])


def publish(version: int, packet: Publish) -> bytes:
    """PUBLISH (section 3.3)."""
    flags = packet.dup << 3 | packet.qos << 1 | packet.retain
    head = p.write_text(packet.topic) + (struct.pack(">H", packet.packet_id) if packet.qos else b"")
    if version == V5:
        head += p.write_properties({}, packet.user)
    return _framed(PUBLISH, head + packet.payload, flags)


def ack(version: int, kind: int, packet_id: int, reason: int = 0) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP; only MQTT 5 can say a reason."""
    flags = _FLAGS.get(kind, 0)
    if version == V5 and reason:
        return struct.pack(">BBHB", kind << 4 | flags, 3, packet_id, reason)
    return struct.pack(">BBH", kind << 4 | flags, 2, packet_id)


def suback(version: int, packet_id: int, codes: list[int]) -> bytes:
    """SUBACK (section 3.9): the QoS granted for each filter, or what speaks against it (0x80 in 3.1.1)."""
    head = struct.pack(">H", packet_id)
    if version == V5:
        return _framed(SUBACK, head + b"\0" + bytes(codes))
    return _framed(SUBACK, head + bytes(min(code, 0x80) for code in codes))


def unsuback(version: int, packet_id: int, codes: list[int]) -> bytes:
    """UNSUBACK (section 3.11)."""
    head = struct.pack(">H", packet_id)
    return _framed(UNSUBACK, head + b"\0" + bytes(codes) if version == V5 else head)


def pingresp() -> bytes:
    """PINGRESP (section 3.13)."""
    return bytes([PINGRESP << 4, 0])


def disconnect(version: int, code: int, reason: str = "") -> bytes:
    """DISCONNECT of the server, which only MQTT 5 has (section 3.14); nothing in 3.1.1."""
    if version != V5:
        return b""
    return _framed(DISCONNECT, bytes([code]) + p.write_properties({p.REASON: reason[:200]} if reason else {}))


def _framed(kind: int, body: bytes, flags: int = 0) -> bytes:
    return bytes([kind << 4 | flags]) + p.write_varint(len(body)) + body
