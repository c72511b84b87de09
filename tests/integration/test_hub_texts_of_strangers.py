"""Texts that a device chooses and the hub writes down: none of them may keep the hub from writing, on any database.

PostgreSQL's text cannot hold NUL; a report or an event with one would be refused again and again, and everything behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.document import encode
from hedgerow.contracts.seal import device_key, seal
from registry.hub.intake import Intake
from registry.hub.link import Uplink
from registry.hub.notes import Notes
from registry.store import fleet
from registry.store.database import Database
from tests.hub_parts import say_hello
from tests.registry_stores import BACKENDS, NOW, ready_database
from tests.rollout_place import RolloutPlace, in_groups, of_devices

MASTER = b"m" * 32


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as made:
        yield made


@pytest.mark.parametrize("reason", ["it\0ended", "\0" * 600])
def test_why_a_module_was_taken_back_is_kept_whatever_it_says(database: Database, reason: str) -> None:
    place = RolloutPlace(database)
    place.enroll("liar", "other")
    place.deploy("old")
    place.report("liar", "other")
    place.deploy("new", in_groups(of_devices(2)))
    place.report("liar", code=500, rolled_back_from="x", rollback_reason=reason)
    place.report("other")
    assert "\0" not in place.rollout().reason
    assert place.rollout().state == "paused"


def test_an_event_of_what_a_device_said_is_written_whatever_it_said(database: Database) -> None:
    with database.write() as connection:
        uuid = fleet.enroll(connection, EnrollDevice(name="pump"), NOW).uuid
    key = device_key(MASTER, uuid, 1)
    intake = Intake(database, MASTER, Notes())
    foreign = msgspec.structs.replace(say_hello(uuid), device_uuid="some\0body")
    intake.handle([Uplink(uuid, "hello", seal(key, uuid, "hello", encode(foreign)))], NOW, 0.0)
    with database.read() as connection:
        (event,) = (one for one in fleet.events_before(connection, 10) if one.kind == "malformed")
    assert "it names device some" in event.reason
    honest = Uplink(uuid, "hello", seal(key, uuid, "hello", encode(say_hello(uuid))))
    assert [answer.leaf for answer in intake.handle([honest], NOW, 1.0).answers] == ["welcome"]
