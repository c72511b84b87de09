"""The device's half of the telemetry protocol against a model hub, over a channel that loses, doubles and delays. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.link.uplink import BATCH_BYTES_MIN, HELLO_TIMEOUT_S, RETRANSMIT_S, WINDOW_BATCHES
from edge_agent.telemetry import appending
from edge_agent.telemetry.entries import Entry
from hedgerow.contracts.telemetry import Hello, TelemetryBatch
from tests.agent_builders import DEVICE_UUID
from tests.uplink_line import STREAM, BadWeather, Line, opened


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.backlog.db.close()


def test_a_hello_says_who_it_is_and_a_welcome_opens_the_session(line: Line) -> None:
    line.backlog.add(3)
    opened(line)
    (hello,) = line.hub.hellos
    assert (hello.device_uuid, hello.instance, hello.starts, hello.streams) == (DEVICE_UUID, "instance-1", 1, [STREAM])
    assert hello.accepted_desired_version == 7
    assert line.uplink.session == line.hub.session
    assert line.hub.bodies() == line.backlog.written
    assert line.queued() == 0


def test_a_welcome_for_another_hello_or_device_is_ignored(line: Line) -> None:
    line.uplink.connected(line.now_s)
    (hello,) = line.up()
    assert isinstance(hello, Hello)
    welcome = line.hub.hello(hello)
    line.down(msgspec.structs.replace(welcome, nonce="older"))
    line.down(msgspec.structs.replace(welcome, device_uuid="another"))
    assert line.uplink.session is None
    line.down(welcome)
    assert line.uplink.phase == "open"


def test_a_welcome_that_comes_twice_takes_nothing_back(line: Line) -> None:
    line.backlog.add(3)
    line.uplink.connected(line.now_s)
    (hello,) = line.up()
    assert isinstance(hello, Hello)
    welcome = line.hub.hello(hello)
    line.down(welcome)
    line.exchange()
    line.down(welcome)
    assert line.queued() == 0
    line.exchange()
    assert (line.queued(), line.hub.bodies()) == (0, line.backlog.written)


def test_a_hello_without_an_answer_is_repeated(line: Line) -> None:
    line.uplink.connected(line.now_s)
    assert [type(item) for item in line.up()] == [Hello]
    assert line.up() == []
    line.now_s += HELLO_TIMEOUT_S
    assert [type(item) for item in line.up()] == [Hello]


def test_a_refused_session_is_asked_for_again_later(line: Line) -> None:
    line.hub.refuse = "another agent holds it"
    line.uplink.connected(line.now_s)
    line.exchange()
    assert (line.uplink.phase, line.uplink.refused, line.uplink.session) == ("refused", "another agent holds it", None)
    line.hub.refuse = ""
    wake_s = line.uplink.next_wake_s()
    assert wake_s is not None
    assert wake_s > line.now_s
    line.now_s = wake_s
    line.exchange()
    assert (line.uplink.phase, line.uplink.refused) == ("open", "")


def test_the_window_is_bounded(line: Line) -> None:
    opened(line)
    line.backlog.add(200)
    assert len(line.up()) == WINDOW_BATCHES
    assert line.up() == []


def test_older_messages_are_marked_as_historical_and_new_ones_are_not(line: Line) -> None:
    line.backlog.add(2)
    opened(line)
    line.backlog.add(1)
    line.exchange()
    assert [m.historical for messages in line.hub.stored.values() for m in messages] == [True, True, False]


@pytest.mark.parametrize("field", ["session", "incarnation", "epoch", "device_uuid"])
def test_an_ack_of_something_else_deletes_nothing(line: Line, field: str) -> None:
    opened(line)
    line.backlog.add(3)
    (batch,) = line.up()
    assert isinstance(batch, TelemetryBatch)
    ack = line.hub.batch(batch)
    assert ack is not None
    line.down(msgspec.structs.replace(ack, **{field: "another"}))
    assert line.queued() == 3
    line.down(ack)
    assert line.queued() == 0


def test_an_ack_beyond_what_was_written_begins_a_new_epoch(line: Line) -> None:
    opened(line)
    line.backlog.add(3)
    (batch,) = line.up()
    assert isinstance(batch, TelemetryBatch)
    ack = line.hub.batch(batch)
    assert ack is not None
    line.down(msgspec.structs.replace(ack, watermark=99))
    line.exchange()
    assert line.hub.hellos[-1].epoch != line.hub.hellos[0].epoch
    # The model never learnt that its own ack was lost, so the three are there twice, each time whole.
    assert line.hub.bodies() == line.backlog.written * 2


def test_lost_batches_and_lost_acks_are_sent_again(line: Line) -> None:
    opened(line)
    line.backlog.add(12)
    for item in line.up()[1:]:
        line.answer(item)  # the first batch is lost, the acks of the others too
    line.now_s += RETRANSMIT_S
    line.exchange()
    assert line.hub.bodies() == line.backlog.written
    assert "sequence-hole" in line.hub.refusals


def test_many_refusals_for_one_hole_send_the_window_once(line: Line) -> None:
    opened(line)
    line.backlog.add(6 * WINDOW_BATCHES)
    _lost, *rest = line.up()
    for answer in [line.answer(item) for item in rest]:
        line.down(answer)
    assert len(line.up()) == WINDOW_BATCHES
    assert line.up() == []


def test_when_repeating_does_not_help_the_hub_is_asked_where_it_stands(line: Line) -> None:
    opened(line)
    line.backlog.add(3)
    line.hub.session = "forgotten"
    line.exchange()
    for _ in range(3):
        line.now_s += RETRANSMIT_S
        line.exchange()
    assert len(line.hub.hellos) == 2
    assert line.hub.bodies() == line.backlog.written


def test_a_cloned_card_starts_an_epoch_of_its_own(line: Line) -> None:
    line.backlog.add(4)
    opened(line)
    clone = Line(hub=line.hub)
    line.backlog.db.backup(clone.backlog.db)
    line.backlog.written.append('"original"')
    appending.append(line.backlog.db, [Entry(STREAM, "m", 1, '"original"')])
    line.exchange()
    appending.append(clone.backlog.db, [Entry(STREAM, "m", 1, '"clone"')])
    clone.uplink.connected(clone.now_s)
    clone.exchange()
    assert line.hub.bodies() == [*line.backlog.written, '"clone"']
    assert len({epoch for epoch, _ in line.hub.stored}) == 2
    clone.backlog.db.close()


def test_a_restored_hub_gets_again_what_it_lacks(line: Line) -> None:
    line.backlog.add(10)
    opened(line)
    line.hub.restore(keep=4)
    line.uplink.disconnected()
    line.uplink.connected(line.now_s)
    line.exchange()
    assert line.hub.bodies() == line.backlog.written


def test_a_connection_that_breaks_under_batches_makes_them_smaller(line: Line) -> None:
    opened(line)
    for _ in range(20):
        line.backlog.add(2, size=1000)
        line.up()
        line.uplink.disconnected()
        line.uplink.connected(line.now_s)
        for item in line.up():
            line.down(line.answer(item))
    first = next(item for item in line.up() if isinstance(item, TelemetryBatch))
    assert sum(len(m.body) for m in first.messages) <= BATCH_BYTES_MIN


def test_what_the_link_does_not_take_is_offered_again(line: Line) -> None:
    opened(line)
    line.backlog.add(20)
    items = line.up()
    for item in reversed(items[1:]):
        assert isinstance(item, TelemetryBatch)
        line.uplink.unsent(item)
    line.down(line.answer(items[0]))
    line.exchange()
    assert line.hub.bodies() == line.backlog.written
    assert line.hub.refusals == []


EVENTS = st.sampled_from(
    ("write", "send", "send", "send", "deliver", "deliver", "deliver", "tick", "cut", "restart-agent", "restart-hub")
)


@given(st.lists(EVENTS, max_size=60), st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_the_channel_does_everything_arrives_once(events: list[str], data: st.DataObject) -> None:
    weather = BadWeather(data)
    line = weather.line
    for event in events:
        weather.happen(event)
    for _ in range(30):
        line.now_s += 60.0
        line.exchange()
    assert line.hub.bodies() == line.backlog.written
    assert len({epoch for epoch, _ in line.hub.stored}) <= 1, "an epoch was begun without need"
    assert line.queued() == 0
    line.backlog.db.close()
