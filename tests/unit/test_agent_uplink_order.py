"""Whose messages the device sends first, and what becomes of those that leave the buffer while they wait. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.link.turns import SHARE
from edge_agent.link.uplink import RETRANSMIT_S
from edge_agent.telemetry import dropping
from hedgerow.contracts.telemetry import Hello, TelemetryBatch
from tests.uplink_line import STREAM, BadWeather, Line, opened


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.backlog.db.close()


def streams_of(items: list[Hello | TelemetryBatch]) -> list[str]:
    return [item.stream for item in items if isinstance(item, TelemetryBatch)]


def test_the_most_urgent_stream_goes_first_and_the_others_get_a_small_share(line: Line) -> None:
    opened(line)
    line.backlog.urgencies = {"alarms": 0}
    for stream in ("a-chatter", "alarms", "b-chatter"):
        line.backlog.add(500, stream)
    sent: list[str] = []
    while "alarms" in (now := streams_of(items := line.up())):
        sent += now
        for item in items:
            line.down(line.answer(item))
    early = sent[: 8 * SHARE]
    assert early[: SHARE - 1] == ["alarms"] * (SHARE - 1)
    assert early.count("alarms") >= 7 * SHARE
    assert early.count("a-chatter") > 1
    assert early.count("b-chatter") > 1


def test_live_data_of_other_streams_goes_before_backfill(line: Line) -> None:
    line.backlog.add(500, "a-old")
    line.uplink.connected(line.now_s)
    line.down(line.answer(line.up()[0]))
    line.backlog.add(3, "live")
    assert streams_of(line.up())[0] == "live"


def test_backfill_keeps_to_its_rate_and_leaves_the_line_to_the_rest(line: Line) -> None:
    line.backlog.add(400)
    line.uplink = line.new_uplink(1, backfill_per_s=20)
    opened(line)
    began_s = line.now_s
    while line.queued():
        wake_s = line.uplink.next_wake_s()
        assert wake_s is not None
        line.now_s = max(line.now_s, wake_s)
        line.backlog.add(1, "live")
        line.exchange()
        assert line.hub.bodies("live")[-1] == line.backlog.written[-1], "live messages of another stream wait for nothing"
        assert len(line.hub.bodies()) <= 20 * (line.now_s - began_s) + 2 * 20
    assert line.now_s - began_s >= 400 / 20 - 2


def test_without_a_limit_nothing_wakes_it_but_its_timers(line: Line) -> None:
    line.backlog.add(10)
    opened(line)
    lease_s = line.uplink.next_wake_s()
    assert lease_s is not None
    assert lease_s > line.now_s + 60


@pytest.mark.parametrize("reads_holes", [False, True])
def test_a_thinned_out_stream_arrives_with_its_gaps(line: Line, reads_holes: bool) -> None:
    line.hub.reads_holes = reads_holes
    line.backlog.add(40)
    dropping.thin(line.backlog.db, STREAM, 1500)
    opened(line)
    kept = {m.sequence for messages in line.hub.stored.values() for m in messages}
    (gaps,) = line.hub.gaps.values()
    lost = [number for gap in gaps for number in range(gap.first_sequence, gap.last_sequence + 1)]
    assert sorted([*kept, *lost]) == list(range(1, 41))
    assert len(lost) >= 5
    assert {gap.reason for gap in gaps} == {"downsampled"}
    assert line.queued() == 0
    assert (len(line.hub.batches) <= 12) == reads_holes
    assert line.hub.refusals == []


def test_messages_that_leave_while_they_are_on_their_way_contradict_nothing(line: Line) -> None:
    line.hub.reads_holes = True
    opened(line)
    line.backlog.add(30)
    items = line.up()
    dropping.thin(line.backlog.db, STREAM, 1500)
    answers = [line.answer(item) for item in items]
    line.down(answers[0])  # the others are lost
    line.now_s += RETRANSMIT_S
    line.exchange()
    assert line.hub.bodies() == line.backlog.written
    assert line.hub.refusals == []
    assert line.queued() == 0


LOSSES = st.sampled_from(("write", "write", "send", "send", "deliver", "deliver", "tick", "cut", "thin", "drop", "restart-agent"))


@given(st.lists(LOSSES, max_size=60), st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_leaves_the_buffer_meanwhile_everything_arrives_or_is_a_gap(
    events: list[str], reads_holes: bool, data: st.DataObject
) -> None:
    weather = BadWeather(data)
    line = weather.line
    line.hub.reads_holes = reads_holes
    for event in events:
        weather.happen(event)
    for _ in range(30):
        line.now_s += 60.0
        line.exchange(rounds=500)
    assert "chain-mismatch" not in line.hub.refusals
    arrived = {m.sequence: m.body for messages in line.hub.stored.values() for m in messages}
    lost = [n for gaps in line.hub.gaps.values() for gap in gaps for n in range(gap.first_sequence, gap.last_sequence + 1)]
    assert set(arrived) | set(lost) == set(range(1, len(line.backlog.written) + 1))
    assert all(line.backlog.written[sequence - 1] == body for sequence, body in arrived.items())
    assert sum(len(messages) for messages in line.hub.stored.values()) == len(arrived)
    assert line.queued() == 0
    line.backlog.db.close()
