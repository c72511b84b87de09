"""Direct methods between server, hub and device, as far as the database goes: what is sent, kept, given up and forgotten."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hedgerow.contracts.api_fleet import Device, EnrollDevice
from hedgerow.contracts.api_methods import InvokeMethod
from hedgerow.contracts.document import decode
from hedgerow.contracts.methods import PART_BYTES, WINDOW_PARTS, MethodAnswer, MethodCall
from hedgerow.contracts.names import PAYLOAD_METHOD_CALL
from hedgerow.contracts.signed import SignedEnvelope
from registry.device_errors import MethodPayloadTooLong, TooManyCalls
from registry.errors import RecordNotFound
from registry.hub import methods as hub_methods
from registry.hub.link import Downlink
from registry.hub.methods import Methods
from registry.store import device_methods, fleet, twins
from registry.store.database import Database
from registry.store.device_methods import MOST_KEPT_BYTES, MOST_OPEN, Call
from registry.store.twins import Session
from tests.registry_stores import BACKENDS, ready_database

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Heard:
    """Wake-ups that were sent."""

    def __init__(self) -> None:
        self.roles: list[str] = []

    def wake(self, role: str) -> None:
        self.roles.append(role)


class Place:
    """A device ``press`` and the hub's part for methods; time goes on when it is told to."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.woken = Heard()
        self.methods = Methods(database, {"k": lambda _: b"signature"}, self.woken)
        self.now = NOW
        with database.write() as connection:
            self.device: Device = fleet.enroll(connection, EnrollDevice(name="press"), NOW)

    def comes(self, session: str = "s1") -> None:
        with self.database.write() as connection:
            held = Session(session, "a", 1, self.now + timedelta(hours=1))
            twins.put_session(connection, self.device.uuid, held)

    def ask(self, *, streamed: bool = False, **wanted: Any) -> str:
        with self.database.write() as connection:
            return device_methods.ask(connection, self.device, "ping", InvokeMethod(**wanted), self.now, streamed=streamed)

    def tend(self, later_s: float = 0.0) -> list[MethodCall]:
        self.now += timedelta(seconds=later_s)
        return [opened(downlink) for downlink in self.methods.tend(self.now, self.now.timestamp())]

    def answers(self, call_id: str, *parts: int, last: int | None = None, **changes: Any) -> None:
        made = [
            MethodAnswer(
                device_uuid=self.device.uuid,
                session="s1",
                id=call_id,
                part=part,
                last=part == last,
                status=200,
                payload=f"{part},",
            )
            for part in parts
        ]
        self.methods.take([msgspec.structs.replace(one, **changes) for one in made], self.now)

    def call(self, call_id: str) -> Call:
        with self.database.read() as connection:
            return device_methods.get(connection, call_id, self.now)

    def payload(self, call_id: str) -> str:
        with self.database.read() as connection:
            return b"".join(device_methods.parts_from(connection, device_methods.get(connection, call_id, self.now), 0)).decode()


def opened(downlink: Downlink) -> MethodCall:
    assert downlink.leaf == "methods"
    assert not downlink.retain
    envelope = decode(downlink.payload, SignedEnvelope)
    assert envelope.payload_type == PAYLOAD_METHOD_CALL
    return decode(base64.b64decode(envelope.payload), MethodCall)


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as database:
        yield Place(database)


def test_a_call_is_sent_to_the_session_and_its_answer_kept(place: Place) -> None:
    place.comes()
    call_id = place.ask(payload={"a": 1}, timeout_s=5)
    (sent,) = place.tend()
    assert (sent.id, sent.session, sent.payload, sent.module) == (call_id, "s1", '{"a":1}', None)
    assert sent.expires_at == NOW + timedelta(seconds=5 + hub_methods.GRACE_S)
    assert place.tend() == []
    place.answers(call_id, 0, last=0)
    assert place.woken.roles == ["server"]
    assert (place.call(call_id).state, place.call(call_id).status, place.payload(call_id)) == ("done", 200, "0,")
    # What was asked may hold a secret: it goes with the end.
    assert place.call(call_id).payload == ""
    assert place.tend(1) == []


def test_a_call_is_repeated_until_something_comes(place: Place) -> None:
    place.comes()
    call_id = place.ask(timeout_s=60)
    place.tend()
    assert place.tend(1.9) == []
    assert [sent.id for sent in place.tend(0.2)] == [call_id]
    assert place.tend(2.0) == []
    assert [sent.id for sent in place.tend(2.1)] == [call_id]
    assert 0.0 < place.methods.wake_in_s(place.now.timestamp()) <= hub_methods.LOOK_EVERY_S


def test_parts_are_kept_in_order_and_what_is_lost_is_asked_for(place: Place) -> None:
    place.comes()
    call_id = place.ask()
    place.tend()
    place.answers(call_id, 0, 1, 3, 4, last=4)
    assert (place.call(call_id).parts, place.call(call_id).state) == (2, "answering")
    (again,) = place.tend(2.1)
    assert again.acknowledged_parts == 2
    assert place.payload(call_id) == "0,1,"
    place.answers(call_id, 1, 2, last=4)
    assert (place.call(call_id).state, place.payload(call_id)) == ("done", "0,1,2,3,4,")


def test_a_stream_waits_for_its_reader(place: Place) -> None:
    place.comes()
    call_id = place.ask(streamed=True)
    place.tend()
    place.answers(call_id, *range(WINDOW_PARTS))
    # Nobody has read: the device gets no more room, however long it takes.
    assert place.tend(30) == []
    with place.database.write() as connection:
        device_methods.note_read(connection, call_id, WINDOW_PARTS, place.now)
    (more,) = place.tend()
    assert more.acknowledged_parts == WINDOW_PARTS
    assert place.payload(call_id) == ""


def test_a_stream_that_nobody_reads_is_given_up(place: Place) -> None:
    place.comes()
    call_id = place.ask(streamed=True)
    place.tend()
    place.answers(call_id, *range(WINDOW_PARTS))
    (told,) = place.tend(hub_methods.READER_PATIENCE_S + 1)
    assert told.cancelled
    assert place.call(call_id).state == "failed"


def test_a_reader_that_goes_ends_the_call_on_the_device(place: Place) -> None:
    place.comes()
    call_id = place.ask(streamed=True)
    place.tend()
    place.answers(call_id, 0, 1)
    with place.database.write() as connection:
        device_methods.cancel(connection, call_id, "nobody reads the answer any more", place.now)
    (told,) = place.tend()
    assert (told.cancelled, told.payload) == (True, "null")
    assert (place.call(call_id).state, place.payload(call_id)) == ("failed", "")


def test_an_answer_that_is_too_long_to_keep_ends_the_call(place: Place) -> None:
    place.comes()
    call_id = place.ask()
    place.tend()
    for part in range(MOST_KEPT_BYTES // PART_BYTES + 1):
        place.answers(call_id, part, payload="x" * PART_BYTES)
    assert place.call(call_id).state == "cancelled"
    (told,) = place.tend()
    assert told.cancelled
    assert "stream" in place.call(call_id).problem


def test_a_device_that_is_away_is_waited_for_as_long_as_was_asked(place: Place) -> None:
    gone, waits = place.ask(), place.ask(connect_timeout_s=20)
    assert place.tend() == []
    assert (place.call(gone).state, place.call(gone).problem) == ("failed", hub_methods.OFFLINE)
    assert place.woken.roles == ["server"]
    place.comes()
    assert [sent.id for sent in place.tend(10)] == [waits]


def test_a_device_that_does_not_answer_is_given_up(place: Place) -> None:
    place.comes()
    call_id = place.ask(timeout_s=5)
    place.tend()
    for _ in range(4):
        place.tend(4)
    assert place.call(call_id).state == "failed"
    assert "nothing came" in place.call(call_id).problem


def test_a_call_ends_with_the_session_that_it_was_signed_for(place: Place) -> None:
    place.comes()
    call_id = place.ask()
    place.tend()
    place.comes("s2")
    assert place.tend() == []
    assert "started again" in place.call(call_id).problem


@pytest.mark.parametrize("changes", [{"session": "s0"}, {"device_uuid": "another"}, {"id": "c" * 32}], ids=str)
def test_answers_of_others_are_left_alone(place: Place, changes: dict[str, str]) -> None:
    place.comes()
    call_id = place.ask()
    place.tend()
    place.answers(call_id, 0, last=0, **changes)
    assert place.call(call_id).state == "sent"
    assert place.woken.roles == []


def test_an_ended_call_takes_nothing_more(place: Place) -> None:
    place.comes()
    call_id = place.ask()
    place.tend()
    place.answers(call_id, 0, last=0)
    place.answers(call_id, 1, last=1)
    assert place.call(call_id).parts == 1


def test_a_revoked_device_gets_nothing(place: Place) -> None:
    place.comes()
    with place.database.write() as connection:
        fleet.revoke(connection, "press", place.now)
    call_id = place.ask()
    assert place.tend() == []
    assert place.call(call_id).problem == hub_methods.OFFLINE


def test_limits_of_one_device(place: Place) -> None:
    for _ in range(MOST_OPEN):
        place.ask()
    with pytest.raises(TooManyCalls):
        place.ask()
    with pytest.raises(MethodPayloadTooLong):
        place.ask(payload="x" * 200_000)


def test_what_has_ended_is_forgotten_after_a_while(place: Place) -> None:
    place.comes()
    call_id = place.ask()
    place.tend()
    place.answers(call_id, 0, last=0)
    place.tend(device_methods.KEPT_S / 2)
    assert place.call(call_id).state == "done"
    place.tend(device_methods.KEPT_S)
    with pytest.raises(RecordNotFound):
        place.call(call_id)


def test_another_hub_goes_on(place: Place) -> None:
    place.comes()
    call_id = place.ask(timeout_s=60)
    place.tend()
    place.answers(call_id, 0, 1)
    place.methods = Methods(place.database, {"k": lambda _: b"signature"}, place.woken)
    assert place.methods.wake_in_s(place.now.timestamp()) == 0.0
    (again,) = place.tend(3)
    assert (again.id, again.acknowledged_parts) == (call_id, 2)
    assert 0.0 < place.methods.wake_in_s(place.now.timestamp()) <= hub_methods.LOOK_EVERY_S
    place.answers(call_id, 2, last=2)
    assert place.methods.wake_in_s(place.now.timestamp()) == 0.0
