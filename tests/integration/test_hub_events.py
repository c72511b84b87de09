"""What the hub tells as events: devices that come, go and come back, desired states, losses, and what it noticed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.document import encode
from hedgerow.contracts.events import Event
from hedgerow.contracts.seal import device_key, seal, unseal
from hedgerow.contracts.telemetry import Welcome
from registry.hub.desired import DesiredStates
from registry.hub.intake import Intake
from registry.hub.link import Uplink
from registry.hub.notes import Notes
from registry.store import edge_deployments, events, fleet
from registry.store.database import Database
from registry.store.events import Wanted
from tests.hub_parts import Tape, manifest, say_hello, say_status
from tests.registry_stores import BACKENDS, NOW, after, ready_database

MASTER = b"m" * 32


@dataclass
class Place:
    database: Database
    notes: Notes = field(default_factory=Notes)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.intake = Intake(self.database, MASTER, self.notes)
        self.desired = DesiredStates(self.database, {"k": Ed25519PrivateKey.generate().sign}, "me", self.notes)

    def enroll(self, name: str) -> str:
        with self.database.write() as connection:
            return fleet.enroll(connection, EnrollDevice(name=name), NOW).uuid

    def say(self, leaf: str, document: msgspec.Struct) -> list[bytes]:
        """A sealed message; the answers, opened."""
        uuid = str(document.device_uuid)  # type: ignore[attr-defined]  # every sealed document has it
        key = device_key(MASTER, uuid, fleet.FIRST_KEY_GENERATION)
        uplink = Uplink(uuid, leaf, seal(key, uuid, leaf, encode(document)))
        handled = self.intake.handle([uplink], self.now, (self.now - NOW).total_seconds())
        return [unseal(key, uuid, answer.leaf, answer.payload) for answer in handled.answers]

    def hello(self, uuid: str, **changes: object) -> str:
        (welcome,) = self.say("hello", say_hello(uuid, **changes))
        return msgspec.json.decode(welcome, type=Welcome).session or ""

    def silence(self) -> None:
        self.intake.tell_silence(self.now)

    def told(self) -> list[Event]:
        with self.database.read() as connection:
            return events.after(connection, events.beginning(connection), Wanted(actor="hub"), 1000).events

    def kinds(self, device: str = "pump") -> list[str]:
        return [event.kind for event in self.told() if event.subject == f"device/{device}"]


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as database:
        yield Place(database)


def test_a_device_comes_goes_and_comes_back(place: Place) -> None:
    uuid = place.enroll("pump")
    session = place.hello(uuid)
    assert place.kinds() == ["device.online"]
    place.now = after(30)
    place.hello(uuid)
    place.silence()
    assert place.kinds() == ["device.online"], "a renewal is no news"
    place.now = after(1000)
    place.silence()
    place.silence()
    assert place.kinds() == ["device.online", "device.offline"], "told once"
    place.say("status", say_status(uuid, session, 1))
    assert place.kinds() == ["device.online", "device.offline", "device.online"]
    place.say("status", say_status(uuid, session, 2))
    place.silence()
    assert len(place.kinds()) == 3
    place.now = after(2000)
    place.silence()
    place.hello(uuid)
    assert place.kinds()[3:] == ["device.offline", "device.online"]
    place.hello(uuid, instance="b", starts=2)
    assert place.kinds()[5:] == ["device.online"]
    assert place.told()[-1].details == {"reason": "its agent was started again"}


def test_a_whole_fleet_that_falls_silent_is_told_in_parts(place: Place) -> None:
    for number in range(205):
        place.hello(place.enroll(f"d{number:03d}"))
    place.now = after(1000)
    place.silence()
    told = [event for event in place.told() if event.kind == "device.offline"]
    assert len({event.subject for event in told}) == len(told) == 205


def test_a_desired_state_that_changes_is_told_with_its_version(place: Place) -> None:
    place.enroll("pump")
    with place.database.write() as connection:
        edge_deployments.put(connection, manifest("all", pumping=["run"]), place.now)
    place.desired.settle(place.now, 0.0)
    place.desired.settle(place.now, 1.0)
    (told,) = [event for event in place.told() if event.kind == "device.desired-set"]
    assert (told.subject, told.details) == ("device/pump", {"modules": "pumping", "version": "1"})


def test_losses_and_contradictions_are_told(place: Place) -> None:
    uuid = place.enroll("pump")
    session = place.hello(uuid)
    tape = Tape(uuid)
    tape.record(*(f'{{"n": {n}}}' for n in range(1, 11)))
    place.say("telemetry", tape.batch(1, 2, session))
    place.say("telemetry", tape.gap(3, 6, session))
    assert place.kinds() == ["device.online", "device.gap"]
    assert "4 messages" in place.told()[-1].details["reason"]
    other = Tape(uuid)
    other.record(*(f'{{"other": {n}}}' for n in range(1, 11)))
    place.say("telemetry", other.batch(7, 10, session))
    assert place.kinds() == ["device.online", "device.gap", "device.chain-mismatch"]


def test_a_second_holder_is_told_seldom(place: Place) -> None:
    uuid = place.enroll("pump")
    place.hello(uuid)
    for _ in range(5):
        place.hello(uuid, instance="copy")
    assert place.kinds() == ["device.online", "device.second-holder"]
