"""What an MQTT client says, as bytes, for tests that speak to the local hub without a client library (and may speak wrongly)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from edge_agent.telemetry.mqtt import codec
from edge_agent.telemetry.mqtt.properties import write_properties, write_text, write_varint


def framed(first: int, body: bytes) -> bytes:
    """Any packet: its first byte, its length, its body."""
    return bytes([first]) + write_varint(len(body)) + body


def connect(
    user: str = "m",
    password: str = "",
    *,
    version: int = codec.V3,
    client_id: str = "c",
    keep_alive_s: int = 0,
    clean: bool = True,
    will: tuple[str, bytes] | None = None,
    properties: bytes = b"\0",
) -> bytes:
    flags = 0xC0 | clean << 1 | (4 if will else 0)
    body = write_text("MQTT") + bytes([version, flags]) + struct.pack(">H", keep_alive_s)
    body += (properties if version == codec.V5 else b"") + write_text(client_id)
    if will:
        body += (b"\0" if version == codec.V5 else b"") + write_text(will[0]) + struct.pack(">H", len(will[1])) + will[1]
    return framed(0x10, body + write_text(user) + write_text(password))


def publish(
    topic: str,
    payload: bytes,
    *,
    packet_id: int = 1,
    qos: int = 1,
    dup: bool = False,
    version: int = codec.V3,
    user: Sequence[tuple[str, str]] = (),
) -> bytes:
    return codec.publish(version, codec.Publish(topic, payload, qos, packet_id, dup, False, tuple(user)))


def subscribe(*filters: str, packet_id: int = 1, qos: int = 1, version: int = codec.V3) -> bytes:
    head = struct.pack(">H", packet_id) + (b"\0" if version == codec.V5 else b"")
    return framed(0x82, head + b"".join(write_text(pattern) + bytes([qos]) for pattern in filters))


def unsubscribe(*filters: str, packet_id: int = 1, version: int = codec.V3) -> bytes:
    head = struct.pack(">H", packet_id) + (b"\0" if version == codec.V5 else b"")
    return framed(0xA2, head + b"".join(write_text(pattern) for pattern in filters))


def ack(kind: int, packet_id: int) -> bytes:
    return codec.ack(codec.V3, kind, packet_id)


def receive_max(value: int) -> bytes:
    """CONNECT properties with a Receive Maximum."""
    return write_properties({33: value})


PING = b"\xc0\0"
DISCONNECT = b"\xe0\0"


def split(data: bytes) -> list[tuple[int, bytes]]:
    """What a server sent, as (first byte, body)."""
    packets = []
    at = 0
    while at < len(data):
        first, size, shift, place = data[at], 0, 0, at + 1
        while True:
            byte = data[place]
            size |= (byte & 0x7F) << shift
            shift, place = shift + 7, place + 1
            if byte < 0x80:
                break
        packets.append((first, data[place : place + size]))
        at = place + size
    return packets
