"""Which devices belong to which group of a rollout, through the hub's own parts on a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.rollout import RolloutGroup
from registry.hub.errors import ManifestInvalid, TargetInvalid
from registry.store import fleet
from tests.registry_stores import ready_database
from tests.rollout_place import RolloutPlace, in_groups


@pytest.fixture
def place(tmp_path: Path) -> Iterator[RolloutPlace]:
    with ready_database(tmp_path / "workspace", None) as database:
        yield RolloutPlace(database)


def test_groups_by_condition_and_percent(place: RolloutPlace) -> None:
    tested = place.enroll("t1", "t2", stage="test")
    others = place.enroll(*(f"p{number}" for number in range(20)))
    place.deploy("old")
    place.deploy("new", in_groups(RolloutGroup(name="bench", target="tags.stage = 'test'"), RolloutGroup(percent=10)))
    assert [(one.name, one.devices) for one in place.rollout().groups] == [("bench", 2), ("group 2", 2), ("rest", 18)]
    assert place.with_command("new") == set(tested)
    place.report(*tested)
    assert len(place.with_command("new") & set(others)) == 2


def test_a_target_that_moves_takes_devices_in_their_turn(place: RolloutPlace) -> None:
    stay, leave, come = place.enroll("stay", a="1", b="1") + place.enroll("leave", a="1") + place.enroll("come", b="1")
    place.deploy("old", target="tags.a = '1'")
    groups = [RolloutGroup(target=f"deviceId = '{name}'") for name in (come, leave)]
    place.deploy("new", in_groups(*groups), target="tags.b = '1'")
    assert place.runs() == {stay: "old", leave: "old", come: "new"}
    place.report(come)
    assert place.runs() == {stay: "old", leave: "", come: "new"}
    place.report(leave)
    assert place.runs() == {stay: "new", leave: "", come: "new"}


def test_policies_that_cannot_be_are_refused(place: RolloutPlace) -> None:
    with pytest.raises(ManifestInvalid, match="both percent and devices"):
        place.deploy("x", in_groups(RolloutGroup(percent=10, devices=3)))
    with pytest.raises(TargetInvalid):
        place.deploy("x", in_groups(RolloutGroup(target="site = 1")))


def test_many_devices_are_shared_out_in_one_go(place: RolloutPlace) -> None:
    with place.database.write() as connection:
        for number in range(300):
            fleet.enroll(connection, EnrollDevice(name=f"m{number}"), place.now)
    place.deploy("new", in_groups(RolloutGroup(percent=1), RolloutGroup(percent=50)))
    assert [devices for _, devices, *_ in place.groups()] == [3, 148, 149]
