"""Groups of uplinks through the intake, on a real database: what is answered, what is ignored, what is told to people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.document import encode
from hedgerow.contracts.seal import device_key, seal, unseal
from hedgerow.contracts.telemetry import CHAIN_START, Hello, TelemetryAck, Welcome
from registry.hub.intake import Handled, Intake
from registry.hub.link import Uplink
from registry.hub.notes import Notes
from registry.hub.sessions import LEASE_S
from registry.store import facts, fleet, telemetry
from registry.store.database import Database
from tests.hub_parts import STREAM, Tape, say_hello, say_status
from tests.registry_stores import BACKENDS, NOW, after, ready_database

D = TypeVar("D", bound=msgspec.Struct)
MASTER = b"m" * 32


@dataclass
class Place:
    database: Database
    notes: Notes = field(default_factory=Notes)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.intake = Intake(self.database, MASTER, self.notes)

    def enroll(self, name: str) -> str:
        with self.database.write() as connection:
            return fleet.enroll(connection, EnrollDevice(name=name), NOW).uuid

    def handle(self, *uplinks: Uplink) -> Handled:
        return self.intake.handle(uplinks, self.now, (self.now - NOW).total_seconds())

    def greet(self, hello: Hello) -> Welcome:
        handled = self.handle(sealed("hello", hello))
        (welcome,) = opened(handled, "welcome", Welcome)
        return welcome

    def session(self, device_uuid: str) -> str:
        session = self.greet(say_hello(device_uuid)).session
        assert session is not None
        return session

    def kinds(self) -> list[str]:
        with self.database.read() as connection:
            return [event.kind for event in fleet.events_before(connection, 100) if event.kind != "enrolled"]

    def stored(self) -> list[int]:
        with self.database.read_series() as connection:
            return [row.sequence for row in telemetry.after(connection, 1000, 0)]


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as database:
        yield Place(database)


def key_of(device_uuid: str, generation: int = fleet.FIRST_KEY_GENERATION) -> bytes:
    return device_key(MASTER, device_uuid, generation)


def sealed(leaf: str, document: msgspec.Struct, topic_of: str | None = None) -> Uplink:
    device_uuid = str(document.device_uuid)  # type: ignore[attr-defined]  # every sealed document has it
    topic_of = topic_of or device_uuid
    return Uplink(topic_of, leaf, seal(key_of(topic_of), topic_of, leaf, encode(document)))


def opened(handled: Handled, leaf: str, kind: type[D]) -> list[D]:
    return [
        msgspec.json.decode(unseal(key_of(answer.device_uuid), answer.device_uuid, leaf, answer.payload), type=kind)
        for answer in handled.answers
        if answer.leaf == leaf
    ]


def recorded(device_uuid: str, count: int = 10) -> Tape:
    tape = Tape(device_uuid)
    tape.record(*(f'{{"n": {n}}}' for n in range(1, count + 1)))
    return tape


def test_a_hello_gives_a_session_and_tells_where_the_hub_stands(place: Place) -> None:
    uuid = place.enroll("pump")
    hello = say_hello(uuid, accepted_desired_version=4)
    handled = place.handle(sealed("hello", hello))
    (welcome,) = opened(handled, "welcome", Welcome)
    with place.database.read() as connection:
        assert welcome.incarnation == facts.incarnation(connection)
    assert (welcome.nonce, welcome.lease_s, welcome.refused) == (hello.nonce, LEASE_S, "")
    assert [(mark.epoch, mark.stream, mark.watermark, mark.chain) for mark in welcome.watermarks] == [
        ("e1", STREAM, 0, CHAIN_START)
    ]
    assert dict(handled.greeted) == {uuid: 4}
    assert welcome.session is not None
    tape = recorded(uuid)
    place.handle(sealed("telemetry", tape.batch(1, 5, welcome.session)))
    again = place.greet(say_hello(uuid))
    assert again.session == welcome.session
    assert (again.watermarks[0].watermark, again.watermarks[0].chain) == (5, tape.chains[5])


def test_telemetry_is_acknowledged_under_the_devices_key(place: Place) -> None:
    uuid = place.enroll("pump")
    session, tape = place.session(uuid), recorded(uuid)
    handled = place.handle(sealed("telemetry", tape.batch(1, 5, session)), sealed("telemetry", tape.batch(6, 8, session)))
    (ack,) = opened(handled, "acks", TelemetryAck)
    assert (ack.session, ack.epoch, ack.stream, ack.watermark, ack.refused) == (session, "e1", STREAM, 8, None)
    assert place.stored() == list(range(1, 9))


def test_telemetry_of_a_session_that_is_over_is_ignored(place: Place) -> None:
    uuid = place.enroll("pump")
    before = place.session(uuid)
    place.greet(say_hello(uuid, instance="b", starts=2))
    tape = recorded(uuid)
    handled = place.handle(sealed("telemetry", tape.batch(1, 5, before)), sealed("telemetry", tape.batch(1, 5, "invented")))
    assert handled.answers == []
    assert place.stored() == []
    assert place.notes.counts["foreign-session"] == 2


def test_a_second_holder_is_refused_and_reported_until_the_lease_runs_out(place: Place) -> None:
    uuid = place.enroll("pump")
    session, tape = place.session(uuid), recorded(uuid)
    copy = say_hello(uuid, instance="copy")
    refused = place.greet(copy)
    assert (refused.session, refused.watermarks) == (None, [])
    assert "another agent" in refused.refused
    assert place.kinds() == ["second-holder"]
    # Every sealed message of the holder renews its lease.
    place.now = after(59)
    place.handle(sealed("telemetry", tape.batch(1, 1, session)))
    place.now = after(59 + LEASE_S)
    assert place.greet(copy).session is None
    place.now = after(59 + LEASE_S + 21)
    assert place.greet(copy).session not in (None, session)
    assert place.kinds()[0] == "taken-over"


def test_a_forged_message_is_dropped_and_reported_seldom(place: Place) -> None:
    uuid = place.enroll("pump")
    session, tape = place.session(uuid), recorded(uuid)
    good = sealed("telemetry", tape.batch(1, 5, session))
    replayed_as = Uplink(uuid, "status", good.payload)
    cut_off = Uplink(uuid, "telemetry", good.payload[:-1])
    bare = Uplink(uuid, "telemetry", encode(tape.batch(1, 5, session)))
    rotated = Uplink(uuid, "telemetry", seal(key_of(uuid, 2), uuid, "telemetry", encode(tape.batch(1, 5, session))))
    empty = Uplink(uuid, "telemetry", b"")
    handled = place.handle(replayed_as, cut_off, bare, rotated, empty)
    assert handled.answers == []
    assert place.stored() == []
    assert place.notes.counts["forged"] == 5
    assert place.kinds() == ["forged"]
    assert len(place.handle(good).answers) == 1


def test_a_device_cannot_speak_for_another(place: Place) -> None:
    one, other = place.enroll("one"), place.enroll("other")
    session = place.session(other)
    batch = recorded(other).batch(1, 5, session)
    # On its own topic, about the other; on the other's topic, with its own key.
    mine = sealed("telemetry", batch, topic_of=one)
    theirs = Uplink(other, "telemetry", seal(key_of(one), one, "telemetry", encode(batch)))
    assert place.handle(mine, theirs).answers == []
    assert place.stored() == []
    assert sorted(place.kinds()) == ["forged", "malformed"]


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[1]", b'{"device_uuid": 7}', b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 99}']
)
def test_a_sealed_message_that_is_no_document_is_dropped(place: Place, payload: bytes) -> None:
    uuid = place.enroll("pump")
    uplinks = [Uplink(uuid, leaf, seal(key_of(uuid), uuid, leaf, payload)) for leaf in ("hello", "telemetry", "status")]
    assert place.handle(*uplinks).answers == []
    assert place.kinds() == ["malformed"]


def test_values_that_no_column_holds_are_dropped(place: Place) -> None:
    uuid = place.enroll("pump")
    session, tape = place.session(uuid), recorded(uuid)
    batch = tape.batch(1, 1, session)
    wrong = [
        sealed("hello", say_hello(uuid, starts=2**40)),
        sealed("hello", say_hello(uuid, accepted_desired_version=2**31 - 1)),
        sealed("hello", say_hello(uuid, instance="\0")),
        sealed("hello", say_hello(uuid, streams=["s"] * 1000)),
        sealed("telemetry", msgspec.structs.replace(batch, epoch="\0")),
        sealed("telemetry", msgspec.structs.replace(batch, epoch="e" * 500)),
        sealed("telemetry", msgspec.structs.replace(batch, messages=[msgspec.structs.replace(batch.messages[0], time_ms=2**70)])),
    ]
    assert place.handle(*wrong).answers == []
    assert place.notes.counts["malformed"] == len(wrong)


def test_unknown_devices_leave_no_trace_in_the_database(place: Place) -> None:
    handled = place.handle(*(Uplink(f"stranger-{number}", "hello", b"x") for number in range(50)))
    assert handled.answers == []
    assert place.notes.counts["unknown-device"] == 50
    assert place.kinds() == []


def test_a_revoked_device_is_ignored_and_reported_seldom(place: Place) -> None:
    uuid = place.enroll("pump")
    session, tape = place.session(uuid), recorded(uuid)
    with place.database.write() as connection:
        fleet.revoke(connection, "pump", NOW)
    for _ in range(3):
        handled = place.handle(sealed("telemetry", tape.batch(1, 5, session)), sealed("hello", say_hello(uuid)))
        # Its hello is told that, and nothing else; see test_link_standing.py.
        assert [answer.leaf for answer in handled.answers] == ["welcome"]
        assert (handled.greeted, handled.reported) == ({}, frozenset())
    assert place.stored() == []
    assert place.kinds() == ["revoked-device", "revoked"]
    place.now = after(120)
    place.handle(sealed("hello", say_hello(uuid)))
    assert place.kinds() == ["revoked-device", "revoked-device", "revoked"]


def test_reports_reach_the_twin_in_order(place: Place) -> None:
    uuid = place.enroll("pump")
    session = place.session(uuid)
    place.handle(
        sealed("status", say_status(uuid, session, 2, m="running")),
        sealed("status", say_status(uuid, "invented", 9, m="failed")),
    )
    place.handle(sealed("status", say_status(uuid, session, 1, m="failed")))
    with place.database.read() as connection:
        device = fleet.get(connection, "pump", place.now)
    assert device.reported is not None
    assert (device.reported.sequence, device.reported.modules["m"].state, device.online) == (2, "running", True)


def test_a_copied_cards_telemetry_is_refused_quarantined_and_reported_once(place: Place) -> None:
    uuid = place.enroll("pump")
    session, tape, copy = place.session(uuid), recorded(uuid), Tape(uuid)
    copy.record(*(["{}"] * 10))
    place.handle(sealed("telemetry", tape.batch(1, 5, session)))
    for first in (1, 5, 6):
        (ack,) = opened(place.handle(sealed("telemetry", copy.batch(first, 8, session))), "acks", TelemetryAck)
        assert (ack.watermark, ack.chain, ack.refused) == (5, tape.chains[5], "chain-mismatch")
    assert place.kinds() == ["chain-mismatch"]
    fresh = Tape(uuid, epoch="e2")
    fresh.record("{}")
    (ack,) = opened(place.handle(sealed("telemetry", fresh.batch(1, 1, session))), "acks", TelemetryAck)
    assert (ack.epoch, ack.watermark, ack.refused) == ("e2", 1, None)


def test_the_same_group_handled_twice_changes_nothing(place: Place) -> None:
    uuid = place.enroll("pump")
    session, tape = place.session(uuid), recorded(uuid)
    group = [
        sealed("hello", say_hello(uuid)),
        sealed("telemetry", tape.batch(1, 5, session)),
        sealed("status", say_status(uuid, session, 1, m="running")),
    ]
    first, second = place.handle(*group), place.handle(*group)
    assert opened(first, "acks", TelemetryAck) == opened(second, "acks", TelemetryAck)
    assert [welcome.session for welcome in opened(second, "welcome", Welcome)] == [session]
    assert place.stored() == [1, 2, 3, 4, 5]
