"""The packets of MQTT 3.1.1 that a device needs, without I/O. One object per connection; bytes in, what they mean out."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _PINGREQ, _PINGRESP = 0x10, 2, 3, 4, 0x82, 9, 0xC0, 13
_CLEAN_SESSION, _HAS_PASSWORD, _HAS_USER = 0x02, 0x40, 0x80
_QOS_1 = 1
_REFUSED = 0x80
PING = bytes([_PINGREQ, 0])
DISCONNECT = b"\xe0\x00"


@dataclass(frozen=True)
class Connected:
    """``code`` 0: the broker takes us."""

    code: int


@dataclass(frozen=True)
class Subscribed:
    granted: bool


@dataclass(frozen=True)
class Published:
    """Something arrived; ``packet_id`` 0 with QoS 0, else it wants a :func:`puback`."""

    topic: str
    payload: bytes
    packet_id: int


Heard = Connected | Subscribed | Published


def connect(client_id: str, keepalive_s: int, username: str | None = None, password: str | None = None) -> bytes:
    """A clean session."""
    flags = _CLEAN_SESSION
    tail = _text(client_id)
    if username is not None:
        flags |= _HAS_USER
        tail += _text(username)
    if password is not None:
        flags |= _HAS_PASSWORD
        tail += _text(password)
    return _packet(_CONNECT, _text("MQTT") + struct.pack("!BBH", 4, flags, keepalive_s) + tail)


def subscribe(packet_id: int, topics: list[str]) -> bytes:
    """All with QoS 1."""
    return _packet(_SUBSCRIBE, struct.pack("!H", packet_id) + b"".join(_text(topic) + bytes([_QOS_1]) for topic in topics))


def publish(packet_id: int, topic: bytes, payload: bytes) -> bytes:
    """QoS 1, not retained."""
    head = len(topic).to_bytes(2, "big") + topic + packet_id.to_bytes(2, "big")
    return b"".join((b"\x32", _length(len(head) + len(payload)), head, payload))


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


class Reader:
    """Cuts a stream of bytes into packets; what a broker sends and a device does not care for is left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Heard]:
        """What ``data`` completes. Raises ValueError for what is no MQTT."""
        data = self._rest + data if self._rest else data
        at = 0
        while (body := _body_at(data, at)) is not None:
            start, end = body
            heard = _read(data[at], data[start:end])
            at = end
            if heard is not None:
                yield heard
        self._rest = data[at:]


def _body_at(data: bytes, at: int) -> tuple[int, int] | None:
    """Begin and end of the body of the packet that begins at ``at``; None while it is not whole."""
    length, shift, place = 0, 0, at + 1
    while place < len(data):
        byte = data[place]
        length |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return (place, place + length) if place + length <= len(data) else None
        shift += 7
        if shift > 21:
            raise ValueError("a packet's length is no MQTT")
    return None


def _read(head: int, body: bytes) -> Heard | None:
    kind = head >> 4
    if kind == _PUBLISH:
        size = int.from_bytes(body[:2], "big") + 2
        if not head & 0x06:
            return Published(body[2:size].decode(), body[size:], 0)
        return Published(body[2:size].decode(), body[size + 2 :], int.from_bytes(body[size : size + 2], "big"))
    if kind == _CONNACK:
        return Connected(body[1])
    if kind == _SUBACK:
        return Subscribed(all(code < _REFUSED for code in body[2:]))
    return None


def _packet(head: int, body: bytes) -> bytes:
    return bytes([head]) + _length(len(body)) + body


def _length(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("!H", len(data)) + data
