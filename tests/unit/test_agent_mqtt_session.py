"""The state machine of one MQTT connection: what is answered, in which order, and what ends it. Bytes and times only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.telemetry.mqtt import codec, session
from edge_agent.telemetry.mqtt.codec import Publish
from edge_agent.telemetry.mqtt.session import Closed, Delivered, Event, Message, Opened, Session, Subscribed
from tests import mqtt_packets as client

LIMIT = 100_000


def new_session(*, code: int = 0, readable: str = "inputs") -> Session:
    return Session(LIMIT, lambda _packet: code, lambda pattern: 0 if pattern.startswith(readable) else 0x87, 0.0)


def opened(version: int = codec.V3, **connect: Any) -> Session:
    made = new_session()
    assert made.receive(client.connect(version=version, **connect), 0.0) == [Opened()]
    made.take_output()
    return made


def answers(of: Session) -> list[tuple[int, bytes]]:
    return client.split(of.take_output())


def tickets(events: list[Event]) -> list[int]:
    return [event.ticket for event in events if isinstance(event, Message)]


def problem_of(events: list[Event]) -> str:
    assert isinstance(events[-1], Closed)
    return events[-1].problem


def test_a_client_that_is_let_in_is_told_so() -> None:
    made = new_session()
    assert made.receive(client.connect(client_id="press"), 0.0) == [Opened()]
    assert made.take_output() == b"\x20\x02\x00\x00"
    assert made.client_id == "press"


def test_mqtt_5_is_told_what_there_is_not() -> None:
    made = new_session()
    made.receive(client.connect(version=codec.V5, client_id=""), 0.0)
    [(first, body)] = answers(made)
    assert (first, body[:2]) == (0x20, b"\0\0")
    properties = body[3:]
    for there in (b"\x25\0", b"\x29\0", b"\x2a\0", b"\x21\x07\xd0", b"\x12\0\x08hedgerow"):
        assert there in properties


@pytest.mark.parametrize(("code", "old"), [(0x86, 4), (0x87, 5), (0x97, 3)])
def test_a_refusal_has_the_code_of_its_version(code: int, old: int) -> None:
    for version, expected in [(codec.V3, bytes([0x20, 2, 0, old])), (codec.V5, bytes([0x20, 3, 0, code, 0]))]:
        made = new_session(code=code)
        assert problem_of(made.receive(client.connect(version=version), 0.0))
        assert made.take_output() == expected
        assert made.receive(client.publish("telemetry", b"1"), 0.0) == []


def test_an_unknown_version_is_refused_as_the_specification_says() -> None:
    made = new_session()
    made.receive(client.framed(0x10, b"\0\4MQTT\x06\x02\0\0\0\1c"), 0.0)
    assert made.take_output() == b"\x20\x02\x00\x01"
    assert made.state == "closed"


@pytest.mark.parametrize(
    "data", [client.PING, client.publish("telemetry", b"1"), client.subscribe("inputs/#"), client.DISCONNECT]
)
def test_connect_comes_first(data: bytes) -> None:
    made = new_session()
    assert problem_of(made.receive(data, 0.0))


def test_connect_comes_once() -> None:
    assert problem_of(opened().receive(client.connect(), 0.0)) == "CONNECT must come first, and once"


def test_an_empty_client_id_needs_a_clean_session_in_3_1_1() -> None:
    made = new_session()
    made.receive(client.connect(client_id="", clean=False), 0.0)
    assert made.take_output() == b"\x20\x02\x00\x02"


def test_before_it_connected_a_client_gets_little_room() -> None:
    made = new_session()
    assert "at most" in problem_of(made.receive(b"\x10\xff\xff\x03", 0.0))
    assert opened().receive(client.publish("telemetry", b"x" * 50_000), 0.0)


def test_nothing_is_acknowledged_before_it_is_done() -> None:
    made = opened()
    [message] = made.receive(client.publish("telemetry", b"1", packet_id=258), 0.0)
    assert isinstance(message, Message)
    assert made.take_output() == b""
    made.done([message.ticket])
    assert made.take_output() == b"\x40\x02\x01\x02"
    made.done([message.ticket])
    assert made.take_output() == b""


@given(st.permutations(range(6)))
def test_acknowledgements_keep_the_order_of_arrival(order: list[int]) -> None:
    made = opened()
    events = made.receive(b"".join(client.publish("telemetry", b"1", packet_id=number) for number in range(1, 7)), 0.0)
    given_tickets = tickets(events)
    told: list[int] = []
    for place in order:
        made.done([given_tickets[place]])
        told += [body[1] for _, body in answers(made)]
    assert told == [1, 2, 3, 4, 5, 6]


def test_qos_0_expects_no_answer() -> None:
    made = opened()
    assert tickets(made.receive(client.publish("telemetry", b"1", qos=0), 0.0)) == [0]
    made.done([0])
    assert (made.take_output(), made.owed) == (b"", 0)


def test_qos_2_is_stored_once_however_often_it_comes() -> None:
    made = opened()
    again = client.publish("telemetry", b"1", packet_id=7, qos=2, dup=True)
    [ticket] = tickets(made.receive(client.publish("telemetry", b"1", packet_id=7, qos=2), 0.0))
    assert made.receive(again, 0.0) == []
    assert made.take_output() == b""
    made.done([ticket])
    assert made.take_output() == b"\x50\x02\x00\x07"
    assert made.receive(again, 0.0) == []
    assert made.take_output() == b"\x50\x02\x00\x07"
    made.receive(client.ack(codec.PUBREL, 7), 0.0)
    assert made.take_output() == b"\x70\x02\x00\x07"
    assert tickets(made.receive(client.publish("telemetry", b"2", packet_id=7, qos=2), 0.0))


def test_a_refused_qos_2_message_is_over() -> None:
    made = opened(codec.V5)
    [ticket] = tickets(made.receive(client.publish("telemetry", b"1", packet_id=7, qos=2, version=codec.V5), 0.0))
    made.done([ticket], 0x99)
    assert made.take_output() == b"\x50\x03\x00\x07\x99"
    assert tickets(made.receive(client.publish("telemetry", b"2", packet_id=7, qos=2, version=codec.V5), 0.0))


def test_qos_2_without_end_is_bounded() -> None:
    made = opened()
    events: list[Event] = []
    for number in range(1, session.QOS2_MAX + 2):
        events = made.receive(client.publish("telemetry", b"1", packet_id=number, qos=2), 0.0)
        made.done(tickets(events))
    assert "PUBREL" in problem_of(events)


def test_more_messages_at_once_than_granted_end_an_mqtt_5_connection() -> None:
    made = opened(codec.V5)
    packet = client.publish("telemetry", b"1", version=codec.V5)
    events = made.receive(packet * (session.RECEIVE_MAX + 2), 0.0)
    assert "granted" in problem_of(events)
    assert answers(made)[-1][1][:1] == b"\x93"


def test_subscriptions_are_granted_at_most_qos_1_and_judged_one_by_one() -> None:
    made = opened()
    assert made.receive(client.subscribe("inputs/#", "other/#", "inputs/a", packet_id=9, qos=2), 0.0) == [
        Subscribed(("inputs/#", "inputs/a"))
    ]
    assert made.take_output() == b"\x90\x05\x00\x09\x01\x80\x01"
    assert made.subscriptions == {"inputs/#": 1, "inputs/a": 1}
    made.receive(client.unsubscribe("inputs/a", "never"), 0.0)
    assert made.take_output() == b"\xb0\x02\x00\x01"
    assert made.subscriptions == {"inputs/#": 1}


def test_mqtt_5_hears_the_reason() -> None:
    made = opened(codec.V5)
    made.receive(client.subscribe("inputs/#", "other/#", version=codec.V5), 0.0)
    assert made.take_output() == b"\x90\x05\x00\x01\x00\x01\x87"
    made.receive(client.unsubscribe("inputs/#", "never", version=codec.V5), 0.0)
    assert made.take_output() == b"\xb0\x05\x00\x01\x00\x00\x11"


def test_subscriptions_are_bounded() -> None:
    made = opened()
    for number in range(session.SUBSCRIPTIONS_MAX + 1):
        made.receive(client.subscribe(f"inputs/{number}"), 0.0)
    assert len(made.subscriptions) == session.SUBSCRIPTIONS_MAX
    assert answers(made)[-1] == (0x90, b"\0\1\x80")


def test_what_is_delivered_waits_for_its_puback() -> None:
    made = opened()
    assert made.deliver(Publish("inputs/a", b"1", 1), "first") == "sent"
    assert made.take_output() == b"\x32\x0d\x00\x08inputs/a\x00\x011"
    assert made.receive(client.ack(codec.PUBACK, 1), 0.0) == [Delivered("first")]
    assert made.receive(client.ack(codec.PUBACK, 1), 0.0) == []
    assert made.deliver(Publish("inputs/a", b"1", 0), "second") == "delivered"


def test_the_window_is_the_clients() -> None:
    made = opened(codec.V5, properties=client.receive_max(2))
    assert [made.deliver(Publish("inputs/a", b"1", 1), None) for _ in range(3)] == ["sent", "sent", "full"]
    made.receive(client.ack(codec.PUBACK, 2), 0.0)
    assert made.deliver(Publish("inputs/a", b"1", 1), None) == "sent"


def test_packet_ids_skip_those_under_way() -> None:
    made = opened()
    made.deliver(Publish("inputs/a", b"", 1), "kept")
    for number in range(65_540):
        made.deliver(Publish("inputs/a", b"", 1), number)
        [(_, body)] = answers(made)[-1:]
        packet_id = int.from_bytes(body[-2:], "big")
        assert packet_id not in (0, 1)
        assert made.receive(client.ack(codec.PUBACK, packet_id), 0.0) == [Delivered(number)]


def test_a_message_larger_than_the_client_takes_is_not_sent() -> None:
    made = opened(codec.V5, properties=b"\x05\x27\0\0\0\x32")
    assert made.deliver(Publish("inputs/a", b"x" * 100, 1), None) == "too-large"
    assert made.take_output() == b""


@pytest.mark.parametrize(("keep_alive_s", "silent_s", "gone"), [(10, 15.0, False), (10, 15.1, True), (0, 10**6, False)])
def test_a_silence_of_one_and_a_half_keep_alives_is_the_end(keep_alive_s: int, silent_s: float, gone: bool) -> None:
    made = opened(keep_alive_s=keep_alive_s)
    made.receive(client.PING, 5.0)
    assert made.take_output() == b"\xd0\x00"
    assert bool(made.overdue(5.0 + silent_s)) is gone


def test_who_does_not_connect_or_does_not_finish_a_packet_is_given_up() -> None:
    assert not new_session().overdue(session.CONNECT_WITHIN_S)
    assert new_session().overdue(session.CONNECT_WITHIN_S + 1)
    made = opened()
    made.receive(client.publish("telemetry", b"x" * 100)[:50], 0.0)
    assert not made.overdue(session.UNFINISHED_MAX_S)
    assert made.overdue(session.UNFINISHED_MAX_S + 1)
    made.not_heard_by_us(session.UNFINISHED_MAX_S)
    assert not made.overdue(session.UNFINISHED_MAX_S + 1)


def test_a_will_is_published_when_the_connection_breaks_and_not_after_good_bye() -> None:
    will = ("telemetry", b"gone")
    assert opened(will=will).lost()[0] == Message("telemetry", b"gone", (), 0, False)
    assert opened(will=will).receive(client.DISCONNECT, 0.0) == [Closed("")]
    assert isinstance(opened(will=will).end(0x8B, "the agent ends")[0], Message)
    made = opened(codec.V5, will=will)
    assert isinstance(made.receive(b"\xe0\x02\x04\x00", 0.0)[0], Message)


def test_the_server_says_why_it_ends_an_mqtt_5_connection() -> None:
    made = opened(codec.V5)
    made.end(session.SHUTTING_DOWN, "the agent ends")
    [(first, body)] = answers(made)
    assert (first, body[0]) == (0xE0, 0x8B)
    assert b"the agent ends" in body
    old = opened()
    old.end(session.SHUTTING_DOWN, "the agent ends")
    assert old.take_output() == b""


def test_what_is_done_after_the_end_is_not_answered() -> None:
    made = opened()
    [ticket] = tickets(made.receive(client.publish("telemetry", b"1"), 0.0))
    made.lost()
    made.done([ticket])
    assert made.take_output() == b""


@given(st.lists(st.binary(max_size=80), max_size=8), st.sampled_from([codec.V3, codec.V5]))
def test_no_bytes_raise_anything_and_nothing_follows_the_end(chunks: list[bytes], version: int) -> None:
    made = opened(version)
    ended = False
    for chunk in chunks:
        events = made.receive(chunk, 0.0)
        assert not (ended and events)
        ended = ended or any(isinstance(event, Closed) for event in events)
    assert (made.state == "closed") is ended
