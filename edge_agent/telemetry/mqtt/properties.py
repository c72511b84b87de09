"""Properties of MQTT 5 packets (OASIS mqtt-v5.0-os, section 2.2.2), and the cursor that reads every field of a packet.

Knows no packets: which properties a packet may carry is told by the codec.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from edge_agent.errors import MqttProtocolError

MALFORMED, PROTOCOL_ERROR, TOO_LARGE = 0x81, 0x82, 0x95

FORMAT, EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION, SUBSCRIPTION_ID = 1, 2, 3, 8, 9, 11
SESSION_EXPIRY, ASSIGNED_CLIENT, SERVER_KEEP_ALIVE, AUTH_METHOD, AUTH_DATA, PROBLEM_INFO = 17, 18, 19, 21, 22, 23
WILL_DELAY, RESPONSE_INFO, SERVER_REFERENCE, REASON, RECEIVE_MAX, TOPIC_ALIAS_MAX, TOPIC_ALIAS = 24, 25, 28, 31, 33, 34, 35
MAX_QOS, RETAIN_AVAILABLE, USER, MAX_PACKET, WILDCARDS, SUBSCRIPTION_IDS, SHARED = 36, 37, 38, 39, 40, 41, 42

# What each is made of: b byte, h two bytes, i four bytes, v variable length, s text, d binary data, p a pair of texts.
_KINDS: Mapping[int, str] = {
    **dict.fromkeys((FORMAT, PROBLEM_INFO, RESPONSE_INFO, MAX_QOS, RETAIN_AVAILABLE, WILDCARDS, SUBSCRIPTION_IDS, SHARED), "b"),
    **dict.fromkeys((SERVER_KEEP_ALIVE, RECEIVE_MAX, TOPIC_ALIAS_MAX, TOPIC_ALIAS), "h"),
    **dict.fromkeys((EXPIRY, SESSION_EXPIRY, WILL_DELAY, MAX_PACKET), "i"),
    SUBSCRIPTION_ID: "v",
    **dict.fromkeys((CONTENT_TYPE, RESPONSE_TOPIC, ASSIGNED_CLIENT, AUTH_METHOD, SERVER_REFERENCE, REASON), "s"),
    **dict.fromkeys((CORRELATION, AUTH_DATA), "d"),
    USER: "p",
}
_WIDTHS = {"b": 1, "h": 2, "i": 4}


class Cursor:
    """Reads the fields of one packet in order; every read past its end raises MqttProtocolError."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data = data
        self._at = at
        self._end = end

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return self._end - self._at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > self._end - self._at:
            raise MqttProtocolError(problem="a packet ended inside one of its fields", code=MALFORMED)
        begin, self._at = self._at, self._at + size
        return self._data[begin : self._at]

    def number(self, width: int) -> int:
        """An integer of so many bytes."""
        return int.from_bytes(self.take(width), "big")

    def varint(self) -> int:
        """A variable byte integer (5.0 section 1.5.5)."""
        value, shift = 0, 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 21:
                raise MqttProtocolError(problem="a variable byte integer has more than four bytes", code=MALFORMED)

    def binary(self) -> bytes:
        """Binary data behind its two-byte length."""
        return self.take(self.number(2))

    def text(self) -> str:
        """A UTF-8 text without U+0000 (3.1.1 section 1.5.3)."""
        return as_text(self.binary())

    def part(self, size: int) -> Cursor:
        """A cursor over the next ``size`` bytes."""
        begin = self._at
        self.take(size)
        return Cursor(self._data, begin, self._at)


def as_text(data: bytes) -> str:
    """Raises MqttProtocolError for anything that 3.1.1 section 1.5.3 does not call a UTF-8 encoded string."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise MqttProtocolError(problem="a text is not UTF-8", code=MALFORMED) from None
    if "\0" in text:
        raise MqttProtocolError(problem="a text contains U+0000", code=MALFORMED)
    return text


class Properties:
    """The properties of one packet; each at most once, but for user properties."""

    def __init__(self) -> None:
        self.values: dict[int, int | str | bytes] = {}
        self.user: list[tuple[str, str]] = []

    def number(self, name: int, default: int) -> int:
        """An integer property."""
        value = self.values.get(name, default)
        return value if isinstance(value, int) else default


def read_properties(cursor: Cursor, allowed: frozenset[int]) -> Properties:
    """Properties behind their length. Raises MqttProtocolError for one that is unknown, not ``allowed`` or there twice."""
    found = Properties()
    part = cursor.part(cursor.varint())
    while part.left:
        name = part.varint()
        if name not in allowed:
            raise MqttProtocolError(problem=f"property {name} does not belong there", code=PROTOCOL_ERROR)
        if name == USER:
            found.user.append((part.text(), part.text()))
        elif name in found.values:
            raise MqttProtocolError(problem=f"property {name} is there twice", code=PROTOCOL_ERROR)
        else:
            found.values[name] = _read_value(part, _KINDS[name])
    return found


def _read_value(cursor: Cursor, kind: str) -> int | str | bytes:
    if kind in _WIDTHS:
        return cursor.number(_WIDTHS[kind])
    if kind == "s":
        return cursor.text()
    return cursor.binary() if kind == "d" else cursor.varint()


def write_properties(values: Mapping[int, int | str] = {}, user: Iterable[tuple[str, str]] = ()) -> bytes:
    """Properties with their length in front."""
    body = b"".join(_written(name, value) for name, value in values.items())
    body += b"".join(bytes([USER]) + write_text(name) + write_text(value) for name, value in user)
    return write_varint(len(body)) + body


def _written(name: int, value: int | str) -> bytes:
    if isinstance(value, str):
        return bytes([name]) + write_text(value)
    return bytes([name]) + value.to_bytes(_WIDTHS[_KINDS[name]], "big")


def write_text(text: str) -> bytes:
    """UTF-8 behind its two-byte length."""
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def write_varint(value: int) -> bytes:
    """A variable byte integer."""
    written = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        written.append(byte | 0x80 if value else byte)
        if not value:
            return bytes(written)
