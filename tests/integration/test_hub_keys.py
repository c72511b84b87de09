"""Under which of its keys a device is heard: the change, messages on their way during it, old copies, restored databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import update

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.seal import SealRefused, device_key, seal, unseal
from hedgerow.contracts.telemetry import TelemetryAck, Welcome
from registry.hub.intake import Handled, Intake
from registry.hub.link import Uplink
from registry.hub.notes import Notes
from registry.store import device_keys, fleet, telemetry, tokens, twins
from registry.store.database import Database
from registry.store.tables import devices
from tests.hub_parts import Tape, say_hello
from tests.registry_stores import NOW, ready_database

MASTER = b"m" * 32


@dataclass
class Place:
    database: Database
    notes: Notes = field(default_factory=Notes)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.intake = Intake(self.database, MASTER, self.notes, on_new_key=lambda: self.told.append("broker"))
        with self.database.write() as connection:
            self.uuid = fleet.enroll(connection, EnrollDevice(name="porch"), NOW).uuid

    def say(self, leaf: str, document: msgspec.Struct, generation: int) -> Handled:
        payload = seal(self.key(generation), self.uuid, leaf, encode(document))
        return self.intake.handle([Uplink(self.uuid, leaf, payload)], NOW, 0.0)

    def key(self, generation: int) -> bytes:
        return device_key(MASTER, self.uuid, generation)

    def hello(self, generation: int) -> Welcome | None:
        """The answer, which must be readable with that key."""
        answers = self.say("hello", say_hello(self.uuid), generation).answers
        return decode(unseal(self.key(generation), self.uuid, "welcome", answers[0].payload), Welcome) if answers else None

    def want(self) -> None:
        with self.database.write() as connection:
            device_keys.want_next(connection, device_keys.get(connection, "porch", NOW), NOW)

    def generations(self) -> tuple[int, int]:
        with self.database.read() as connection:
            found = device_keys.get(connection, "porch", NOW)
        return found.generation, found.wanted

    def kinds(self) -> list[str]:
        with self.database.read() as connection:
            return [event.kind for event in fleet.events_before(connection, 100)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ready_database(tmp_path / "workspace", None) as database:
        yield Place(database)


def test_both_keys_are_good_until_the_new_one_was_heard(place: Place) -> None:
    place.want()
    place.want()
    assert place.generations() == (1, 2)
    first = place.hello(1)
    assert first is not None
    assert first.session is not None
    assert (place.generations(), place.told) == ((1, 2), [])
    tape = Tape(place.uuid)
    tape.record("1", "2", "3")
    (ack,) = place.say("telemetry", tape.batch(1, 2, first.session), 2).answers
    assert decode(unseal(place.key(2), place.uuid, "acks", ack.payload), TelemetryAck).watermark == 2
    assert (place.generations(), place.told) == ((2, 2), ["broker"])
    # What was on its way under the old key is not taken and not answered; the device sends it again, in the same session.
    assert place.say("telemetry", tape.batch(3, 3, first.session), 1).answers == []
    (ack,) = place.say("telemetry", tape.batch(1, 3, first.session), 2).answers
    assert decode(unseal(place.key(2), place.uuid, "acks", ack.payload), TelemetryAck).watermark == 3
    with place.database.read_series() as connection:
        assert [row.sequence for row in telemetry.after(connection, 100, 0)] == [1, 2, 3]
    assert place.kinds() == ["key-rotated", "key-rotation-wanted", "enrolled"]


def test_nothing_but_a_hello_is_taken_under_a_key_that_nobody_wants(place: Place) -> None:
    first = place.hello(1)
    assert first is not None
    tape = Tape(place.uuid)
    tape.record("1")
    assert place.say("telemetry", tape.batch(1, 1, first.session or ""), 2).answers == []
    assert place.generations() == (1, 1)
    assert place.kinds() == ["forged", "enrolled"]


def test_an_old_copy_is_told_so_in_words_that_it_can_read(place: Place) -> None:
    place.want()
    assert place.hello(2) is not None
    refused = place.hello(1)
    assert refused is not None
    assert refused.session is None
    assert "it speaks with key 1, and has had key 2 since" in refused.refused
    assert place.kinds()[0] == "old-key"
    renewed = place.hello(2)
    assert renewed is not None
    assert renewed.session is not None


def test_a_restored_database_learns_from_its_devices(place: Place) -> None:
    """The backup is of a time before three changes; the device has gone on, and knows a token that was lost with them."""
    welcome = place.hello(4)
    assert welcome is not None
    assert welcome.session is not None
    assert place.generations() == (4, 4)
    with place.database.write() as connection:
        token = device_keys.token_for(connection, place.uuid, "porch", 4, MASTER, NOW)
    with place.database.read() as connection:
        assert tokens.verify(connection, token, NOW).subject == place.uuid


def test_a_revoked_device_changes_nothing(place: Place) -> None:
    place.want()
    with place.database.write() as connection:
        fleet.revoke(connection, "porch", NOW)
    refused = place.hello(2)
    assert refused is None or refused.session is None
    assert place.generations()[0] == 1


def test_a_key_of_another_master_is_none_of_ours(place: Place) -> None:
    place.want()
    payload = seal(device_key(b"x" * 32, place.uuid, 2), place.uuid, "hello", encode(say_hello(place.uuid)))
    assert place.intake.handle([Uplink(place.uuid, "hello", payload)], NOW, 0.0).answers == []
    with pytest.raises(SealRefused):
        unseal(place.key(2), place.uuid, "hello", payload)


def test_desired_states_speak_of_a_key_from_the_second_on(place: Place) -> None:
    def told() -> int:
        with place.database.read() as connection:
            (twin,) = twins.stored_twins(connection)
        return twin.key_generation

    assert told() == 0
    place.want()
    assert told() == 2
    with place.database.write() as connection:
        connection.execute(update(devices).values(key_generation=2))
    assert told() == 2, "a desired state is not issued anew because the change is over"
