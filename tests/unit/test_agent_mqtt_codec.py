"""Bytes of clients as packets: the same packets however the stream is cut, and nothing but a protocol error for what is wrong."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MqttProtocolError
from edge_agent.telemetry.mqtt import codec
from edge_agent.telemetry.mqtt.codec import Ack, Connect, Decoder, Disconnect, Packet, Ping, Publish, Subscribe, Unsubscribe
from edge_agent.telemetry.mqtt.properties import write_properties, write_text
from tests import mqtt_packets as client

LIMIT = 5000
texts = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=40)
users = st.lists(st.tuples(texts, texts), max_size=3)


def packets_of(*chunks: bytes, limit: int = LIMIT, version: int = 0) -> list[Packet]:
    decoder = Decoder(limit)
    decoder.version = version
    found: list[Packet] = []
    for chunk in chunks:
        decoder.feed(chunk)
        while (packet := decoder.next()) is not None:
            found.append(packet)
    return found


@st.composite
def publishes(draw: st.DrawFn, version: int) -> Publish:
    qos = draw(st.integers(0, 2))
    return Publish(
        draw(texts),
        draw(st.binary(max_size=300)),
        qos,
        draw(st.integers(1, 65535)) if qos else 0,
        bool(qos) and draw(st.booleans()),
        draw(st.booleans()),
        tuple(draw(users)) if version == codec.V5 else (),
    )


@pytest.mark.parametrize("version", [codec.V3, codec.V5])
@given(data=st.data())
def test_a_stream_cut_anywhere_gives_the_same_packets(version: int, data: st.DataObject) -> None:
    sent = data.draw(st.lists(publishes(version), max_size=6))
    stream = client.connect(version=version) + b"".join(codec.publish(version, packet) for packet in sent)
    stream += client.subscribe("inputs/#", "a/+", version=version) + client.PING + client.unsubscribe("a/+", version=version)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    first, *middle, subscribe, ping, unsubscribe = packets_of(*pieces)
    assert first == Connect(version, "c", True, 0, "m")
    assert middle == sent
    assert subscribe == Subscribe(1, (("inputs/#", 1), ("a/+", 1)))
    assert (ping, unsubscribe) == (Ping(), Unsubscribe(1, ("a/+",)))


def test_one_byte_at_a_time_is_a_stream_as_well() -> None:
    stream = client.connect() + client.publish("telemetry", b"x" * 3000) + client.DISCONNECT
    found = packets_of(*(bytes([byte]) for byte in stream))
    assert found == [Connect(codec.V3, "c", True, 0, "m"), Publish("telemetry", b"x" * 3000, 1, 1), Disconnect()]


@given(st.lists(st.binary(max_size=60), max_size=10), st.sampled_from([0, codec.V3, codec.V5]))
def test_no_bytes_raise_anything_but_the_protocol_error(chunks: list[bytes], version: int) -> None:
    with contextlib.suppress(MqttProtocolError):
        packets_of(*chunks, version=version)


@pytest.mark.parametrize("version", [codec.V3, codec.V5])
@given(data=st.data())
def test_nor_do_packets_with_a_few_wrong_bytes(version: int, data: st.DataObject) -> None:
    whole = bytearray(
        client.connect(version=version, will=("telemetry", b"1"))
        + client.publish("outputs/a", b"{}", version=version, user=[("a", "b")] if version == codec.V5 else ())
        + client.subscribe("inputs/#", version=version)
        + client.ack(codec.PUBACK, 7)
    )
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MqttProtocolError):
        packets_of(bytes(whole))


def test_a_packet_above_the_limit_is_refused_before_its_body_comes() -> None:
    with pytest.raises(MqttProtocolError, match="at most 5000") as refused:
        packets_of(b"\x30\xff\xff\xff\x7f")
    assert refused.value.fields["code"] == 0x95


def test_an_unfinished_packet_is_not_copied_again_and_again() -> None:
    decoder = Decoder(200_000)
    decoder.feed(b"\x30" + b"\xa0\x8d\x06")
    assert decoder.next() is None
    for _ in range(50_000):
        decoder.feed(b"x")
        assert decoder.next() is None
    assert decoder.unfinished


bad_utf8 = struct.pack(">H", 3) + b"a\xc0\xaf"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("five length bytes", b"\x30\xff\xff\xff\xff\x01"),
        ("kind 0", b"\x00\x00"),
        ("kind 15 in 3.1.1", b"\xf0\x00"),
        ("a server's packet", b"\xd0\x00"),
        ("SUBSCRIBE with wrong flags", b"\x80" + client.subscribe("a")[1:]),
        ("PINGREQ with a body", b"\xc0\x01x"),
        ("PUBLISH with QoS 3", b"\x36" + client.publish("a", b"")[1:]),
        ("PUBLISH with QoS 0 and DUP", b"\x38\x03\x00\x01a"),
        ("PUBLISH with packet id 0", client.framed(0x32, write_text("a") + b"\0\0")),
        ("PUBLISH without a topic", client.framed(0x30, b"\0\0x")),
        ("PUBLISH that is empty", b"\x30\x00"),
        ("PUBLISH with a topic longer than itself", b"\x30\x03\xff\xffa"),
        ("PUBLISH with a wildcard", client.framed(0x30, write_text("a/+"))),
        ("PUBLISH with U+0000", client.framed(0x30, write_text("a\0b"))),
        ("PUBLISH with overlong UTF-8", client.framed(0x30, bad_utf8)),
        ("PUBLISH with a surrogate", client.framed(0x30, b"\0\3\xed\xa0\x80")),
        ("SUBSCRIBE without a filter", client.framed(0x82, b"\0\1")),
        ("SUBSCRIBE with # in the middle", client.subscribe("a/#/b")),
        ("SUBSCRIBE with a + beside letters", client.subscribe("a/b+")),
        ("SUBSCRIBE with QoS 3", client.subscribe("a", qos=3)),
        ("SUBSCRIBE with a hundred filters", client.subscribe(*["a"] * 100)),
        ("PUBACK without a packet id", b"\x40\x00"),
        ("CONNECT of MQTT 3.1", client.framed(0x10, write_text("MQIsdp") + b"\x03\x02\0\0\0\1c")),
        ("CONNECT of MQTT 6", client.framed(0x10, write_text("MQTT") + b"\x06\x02\0\0\0\1c")),
        ("CONNECT with the reserved flag", client.framed(0x10, write_text("MQTT") + b"\x04\x03\0\0\0\1c")),
        ("CONNECT with a will QoS but no will", client.framed(0x10, write_text("MQTT") + b"\x04\x0a\0\0\0\1c")),
        ("CONNECT with more than it says", client.framed(0x10, write_text("MQTT") + b"\x04\x02\0\0\0\1cxx")),
        ("CONNECT with Receive Maximum 0", client.connect(version=codec.V5, properties=client.receive_max(0))),
        ("CONNECT with a property twice", client.connect(version=codec.V5, properties=b"\x06\x21\0\1\x21\0\1")),
        ("CONNECT with a property of others", client.connect(version=codec.V5, properties=write_properties({36: 1}))),
        ("CONNECT with an authentication method", client.connect(version=codec.V5, properties=write_properties({21: "x"}))),
    ],
)
def test_what_no_client_may_say(name: str, data: bytes) -> None:
    with pytest.raises(MqttProtocolError):
        packets_of(data)


def test_a_topic_alias_was_not_offered() -> None:
    body = write_text("a") + b"\0\1" + write_properties({35: 1}) + b"x"
    with pytest.raises(MqttProtocolError) as refused:
        packets_of(client.framed(0x32, body), version=codec.V5)
    assert refused.value.fields["code"] == 0x94


def test_acknowledgements_of_both_versions() -> None:
    assert packets_of(client.ack(codec.PUBACK, 258)) == [Ack(codec.PUBACK, 258)]
    with_reason = b"\x40\x04\x01\x02\x10\x00"
    assert packets_of(with_reason, version=codec.V5) == [Ack(codec.PUBACK, 258, 16)]
    assert packets_of(codec.ack(codec.V5, codec.PUBREL, 3), version=codec.V5) == [Ack(codec.PUBREL, 3)]


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("+/+", "a/b", True),
        ("+", "a/b", False),
        ("#", "a/b", True),
        ("a/+/c", "a//c", True),
        ("A/b", "a/b", False),
    ],
)
def test_filters_match_as_the_specification_says(pattern: str, topic: str, expected: bool) -> None:
    assert codec.filter_matches(pattern, topic) is expected
