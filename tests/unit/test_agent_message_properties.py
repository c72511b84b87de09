"""Properties of messages on a device: what the hub is told, what they cost, and buffer files of agents that knew none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.errors import MessageRefused
from edge_agent.telemetry import appending, ledger, salvage, schema
from edge_agent.telemetry.entries import START, Entry, Portion, read_properties
from edge_agent.telemetry.reception import entries_for
from edge_agent.telemetry.routing.message import ModuleMessage, read_delivery
from edge_agent.telemetry.routing.router import Destination, Destinations
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.seal import seal
from hedgerow.contracts.telemetry import (
    PROPERTIES_BYTES_MAX,
    PROPERTIES_MAX,
    TelemetryBatch,
    TelemetryMessage,
    chain_over,
    properties_problem,
)
from hedgerow.errors import InvalidDocument
from registry.hub.link import Uplink
from registry.hub.uplinks import open_uplink

UPSTREAM = Destinations(Destination("telemetry"))
ODD = {"site": "north", "": "", "ümlaut": '"quoted"\n\0', "$.on": "claimed"}


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(connection)
    yield connection
    connection.close()


def message(**fields: object) -> ModuleMessage:
    return ModuleMessage(module="m", body="1", time_ms=1, **fields)  # type: ignore[arg-type]  # fields of ModuleMessage


def told(sent: ModuleMessage) -> dict[str, str] | None:
    (entry,) = entries_for(sent, UPSTREAM)
    return None if entry.properties is None else read_properties(entry.properties)


def read(db: sqlite3.Connection, *, max_bytes: int = 1 << 20) -> Portion:
    portion = ledger.read_after(db, "telemetry", START, max_messages=100, max_bytes=max_bytes)
    assert portion is not None
    return portion


def test_the_hub_is_told_what_a_body_does_not_say() -> None:
    assert told(message()) is None
    assert told(message(system={"contentType": "application/json; charset=utf-8", "messageId": "7"})) is None
    assert told(message(system={"contentType": "application/x-ndjson"})) is None
    assert told(message(output="alerts", properties={"a": "b"})) == {"a": "b", "$.on": "alerts"}
    assert told(message(system={"contentType": "text/csv"})) == {"$.ct": "text/csv"}
    assert told(message(output="alerts", properties=ODD)) == {**ODD, "$.on": "alerts"}


def test_only_what_goes_to_the_hub_has_them_beside_its_body() -> None:
    both = Destinations(Destination("telemetry"), (Destination("input.b.in", module="b", input="in"),))
    upstream, local = entries_for(message(properties={"a": "b"}), both)
    assert (upstream.properties, local.properties) == ('{"a":"b"}', None)
    assert read_delivery(local.body).properties == {"a": "b"}


@pytest.mark.parametrize(
    "properties",
    [{str(number): "" for number in range(PROPERTIES_MAX + 1)}, {"a": "ü" * (PROPERTIES_BYTES_MAX // 2)}],
    ids=["too many", "too long"],
)
def test_what_no_hub_would_take_is_refused_before_it_is_stored(properties: dict[str, str]) -> None:
    with pytest.raises(MessageRefused, match="properties"):
        entries_for(message(properties=properties), UPSTREAM)
    sent = TelemetryMessage(sequence=1, time_ms=1, module="m", body="1", properties=properties)
    with pytest.raises(InvalidDocument, match="properties"):
        open_uplink(uplink(sent), b"k" * 32)
    # The protocol's own do not make a message too long that was not.
    assert properties_problem({"a": "b" * (PROPERTIES_BYTES_MAX - 1)}) == ""


def uplink(*messages: TelemetryMessage) -> Uplink:
    batch = TelemetryBatch(
        device_uuid="d1",
        session="s",
        epoch="e",
        stream="telemetry",
        first_sequence=1,
        previous_chain="0" * 64,
        chain=chain_over("0" * 64, messages),
        messages=list(messages),
    )
    return Uplink("d1", "telemetry", seal(b"k" * 32, "d1", "telemetry", encode(batch)))


def test_they_travel_whole_and_cost_nothing_where_there_are_none() -> None:
    plain = TelemetryMessage(sequence=1, time_ms=1, module="m", body="1")
    odd = TelemetryMessage(sequence=2, time_ms=1, module="m", body="2", properties=ODD)
    said, payload = open_uplink(uplink(plain, odd), b"k" * 32)
    assert isinstance(said, TelemetryBatch)
    assert [one.properties for one in said.messages] == [{}, ODD]
    assert payload.count(b"properties") == 1
    assert decode(payload, TelemetryBatch) == said


def test_they_are_kept_with_their_message_and_count(db: sqlite3.Connection) -> None:
    long = '{"a":"' + "x" * 3000 + '"}'
    appending.append(db, [Entry("telemetry", "m", 1, "1"), Entry("telemetry", "m", 1, "2", properties=long)])
    assert [one.properties for one in read(db).messages] == [{}, {"a": "x" * 3000}]
    assert ledger.totals(db).queued_bytes == schema.size_of(1) + schema.size_of(1 + len(long)) > 3000
    assert len(read(db, max_bytes=3000).messages) == 1, "a batch holds no more than its bytes"
    ledger.begin_epoch(db)
    assert read(db).messages[1].properties == {"a": "x" * 3000}


def test_something_else_in_their_place_is_none(db: sqlite3.Connection) -> None:
    for number, text in enumerate(("{", "[1]", '{"a": 1}', b"\xff", 7)):
        appending.append(db, [Entry("telemetry", "m", 1, str(number))])
        db.execute("UPDATE messages SET properties = ? WHERE body = ?", (text, str(number)))
    assert [one.properties for one in read(db).messages] == [{}] * 5


def test_a_file_of_an_agent_that_knew_none_goes_on(db: sqlite3.Connection) -> None:
    appending.append(db, [Entry("telemetry", "m", 1, str(number)) for number in range(50)])
    before = read(db)
    db.execute("ALTER TABLE messages DROP COLUMN properties")
    assert not schema.is_up_to_date(db)
    schema.bring_up_to_date(db)
    assert schema.is_up_to_date(db)
    assert read(db) == before
    appending.append(db, [Entry("telemetry", "m", 1, "50", properties='{"a":"b"}')])
    assert read(db).messages[50].properties == {"a": "b"}


def test_an_agent_of_before_can_go_on_with_a_file_of_today(db: sqlite3.Connection) -> None:
    """A release that is taken back must not find a buffer that it does not know."""
    assert schema.format_of(db) == 2
    names = "id, stream, sequence, time_ms, module, body, chain, size, expires"  # as releases before wrote them
    db.execute(f"INSERT INTO messages ({names}) VALUES (1, 'telemetry', 1, 1, 'm', '1', 'c', 160, NULL)")
    assert db.execute("SELECT properties FROM messages").fetchone() == (None,)


def test_migrating_takes_no_longer_for_many_messages(db: sqlite3.Connection) -> None:
    def steps_for(count: int) -> int:
        old = sqlite3.connect(":memory:", isolation_level=None)
        schema.create(old)
        appending.append(old, [Entry("telemetry", "m", 1, "1")] * count)
        old.execute("ALTER TABLE messages DROP COLUMN properties")
        counted = 0

        def count_step() -> int:
            nonlocal counted
            counted += 1
            return 0

        old.set_progress_handler(count_step, 10)
        schema.bring_up_to_date(old)
        old.close()
        return counted

    assert steps_for(20_000) <= 2 * steps_for(10) + 10


@pytest.mark.parametrize("knows", [True, False], ids=["of today", "of before"])
def test_what_can_be_read_of_a_damaged_file_keeps_them(db: sqlite3.Connection, tmp_path: Path, knows: bool) -> None:
    path = tmp_path / "damaged"
    damaged = sqlite3.connect(path, isolation_level=None)
    schema.create(damaged)
    appending.append(damaged, [Entry("telemetry", "m", 1, "1", properties='{"a":"b"}')])
    if not knows:
        damaged.execute("ALTER TABLE messages DROP COLUMN properties")
    damaged.close()
    salvage.carry_over(db, path, {})
    assert [one.properties for one in read(db).messages] == [{"a": "b"} if knows else {}]
