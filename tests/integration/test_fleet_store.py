"""Devices, twins, edge deployments and telemetry in a real database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from hedgerow.contracts.api_fleet import Device, EnrollDevice
from hedgerow.contracts.edge import DesiredModule, DesiredState, ModuleSpec
from hedgerow.contracts.names import Reference
from hedgerow.contracts.service import ImagePin
from hedgerow.errors import UserError
from registry.errors import InUse, LeaseLost, NameTaken, RecordNotFound
from registry.store import edge_deployments, fleet, images, leases, telemetry, twins
from registry.store.database import Database
from registry.store.tables import twins as twins_table
from registry.store.telemetry import Arrived, GapCursor, GapRow, Mark, StreamKey
from tests.hub_parts import Tape, manifest, say_status
from tests.registry_stores import BACKENDS, NOW, add_image, add_model, after, ready_database


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as ready:
        yield ready


@pytest.fixture
def records(database: Database) -> Iterator[Connection]:
    with database.write() as connection:
        yield connection


@pytest.fixture
def series(database: Database) -> Iterator[Connection]:
    with database.write_series() as connection:
        yield connection


def enroll(records: Connection, name: str, **tags: str) -> Device:
    return fleet.enroll(records, EnrollDevice(name=name, tags=tags), NOW)


def test_a_device_is_enrolled_once(records: Connection) -> None:
    device = enroll(records, "pump-1", site="north")
    assert (device.name, device.tags, device.enrolled_at, device.online) == ("pump-1", {"site": "north"}, NOW, False)
    with pytest.raises(NameTaken):
        enroll(records, "pump-1")
    assert fleet.get(records, "pump-1", NOW) == device
    with pytest.raises(RecordNotFound):
        fleet.get(records, "pump-2", NOW)


def test_devices_are_listed_by_name_in_pages(records: Connection) -> None:
    for name in ("c", "a", "b"):
        enroll(records, name)
    first, following = fleet.page(records, 2, None, NOW)
    rest, end = fleet.page(records, 2, following, NOW)
    assert ([device.name for device in first], following) == (["a", "b"], "b")
    assert ([device.name for device in rest], end) == (["c"], None)


def test_devices_are_filtered_by_name_tags_and_presence(records: Connection) -> None:
    for name, tags in {
        "a": {"site": "x"},
        "b_1": {"site": 'x"y'},
        "b-1": {'k,"site': "x"},
        "b.1": {"Site": "x", "z": ""},
    }.items():
        enroll(records, name, **tags)
    twins.put_session(records, fleet.get(records, "a", NOW).uuid, twins.Session("s", "a", 1, after(60)))
    fleet.revoke(records, "b.1", NOW)

    def found(**wanted: Any) -> list[str]:
        return [device.name for device in fleet.page(records, 10, None, NOW, fleet.Wanted(**wanted))[0]]

    assert found(tags=["site=x"]) == ["a"]
    assert found(tags=["site"]) == ["a", "b_1"]
    assert found(tags=['site=x"y']) == ["b_1"]
    assert found(tags=["Site=x", "z="]) == ["b.1"]
    assert found(name="b_*") == ["b_1"]
    assert set(found(name="b*")) == {"b_1", "b-1", "b.1"}
    assert len(found(name="*")) == 4
    assert (found(state="online"), found(state="revoked")) == (["a"], ["b.1"])
    assert set(found(state="offline")) == {"b_1", "b-1"}
    for wrong in ({"name": "B*"}, {"name": "b%"}, {"name": "*b"}, {"tags": ["=x"]}, {"edge_deployment": "B"}):
        with pytest.raises(UserError):
            found(**wrong)


def test_tags_are_changed_one_by_one(records: Connection) -> None:
    device = enroll(records, "press-1", site="x", line="1")
    changed = fleet.change_tags(records, device, {"line": None, "stage": "test", "absent": None}, NOW)
    assert changed.tags == {"site": "x", "stage": "test"}
    assert fleet.change_tags(records, changed, {}, NOW) == changed
    assert [event.kind for event in fleet.events_before(records, 10)] == ["tagged", "enrolled"]


def test_a_device_is_online_as_long_as_its_lease_runs(records: Connection) -> None:
    device = enroll(records, "pump-1")
    twins.put_session(records, device.uuid, twins.Session("s", "a", 1, after(60)))
    assert fleet.get(records, "pump-1", after(59)).online
    assert not fleet.get(records, "pump-1", after(60)).online
    twins.renew_sessions(records, [device.uuid], after(100), after(59))
    renewed = fleet.get(records, "pump-1", after(99))
    assert renewed.online
    assert renewed.seen_at == after(59)


def test_a_revoked_device_has_no_session_and_no_desired_state(records: Connection) -> None:
    device = enroll(records, "pump-1")
    twins.put_session(records, device.uuid, twins.Session("s", "a", 1, after(60)))
    assert fleet.revoke(records, "pump-1", after(1)).revoked_at == after(1)
    assert fleet.revoke(records, "pump-1", after(2)).revoked_at == after(1)
    known = twins.known_devices(records, [device.uuid])[device.uuid]
    assert (known.revoked, known.session) == (True, None)
    assert twins.stored_twins(records) == []
    assert [event.kind for event in fleet.events_before(records, 10)] == ["revoked", "enrolled"]


def test_a_deleted_device_leaves_its_events_behind(records: Connection) -> None:
    device = enroll(records, "pump-1")
    assert fleet.forget(records, "pump-1", NOW).uuid == device.uuid
    events = fleet.events_before(records, 10, device_uuid=device.uuid)
    assert [(event.kind, event.device) for event in events] == [("deleted", device.uuid), ("enrolled", device.uuid)]
    assert fleet.events_before(records, 10, before=events[0].number) == events[1:]
    assert enroll(records, "pump-1").uuid != device.uuid


def test_only_newer_reports_of_a_session_are_kept(records: Connection) -> None:
    device = enroll(records, "pump-1")
    assert twins.put_report(records, say_status(device.uuid, "s", 5, m="running"), after(1))
    assert not twins.put_report(records, say_status(device.uuid, "s", 5, m="failed"), after(2))
    assert not twins.put_report(records, say_status(device.uuid, "s", 4, m="failed"), after(2))
    assert twins.put_report(records, say_status(device.uuid, "t", 1, m="stopped"), after(3))
    found = fleet.get(records, "pump-1", NOW)
    assert found.reported is not None
    assert (found.reported.modules["m"].state, found.seen_at) == ("stopped", after(3))


def desired(records: Connection, device: Device, version: int = 1, **pins: ImagePin) -> DesiredState:
    modules = {name: DesiredModule(spec=ModuleSpec(image="x"), image=pin) for name, pin in pins.items()}
    return DesiredState(
        device_uuid=device.uuid, version=version, incarnation="i", issued_at=NOW, edge_deployment="d", modules=modules
    )


def test_a_desired_state_protects_its_images(records: Connection) -> None:
    image = add_image(records, "shuttle", add_model(records))
    device = enroll(records, "pump-1")
    edge_deployments.put(records, manifest("d"), NOW)
    lease = leases.acquire(records, "hub", "me", 60, NOW)
    assert lease is not None
    pin = ImagePin(name=image.name, version=image.version, digest=image.digest, kind=image.kind)
    twins.put_desired(records, lease, desired(records, device, m=pin), 1, b"envelope")
    assert twins.desired_envelopes(records) == {device.uuid: b"envelope"}
    with pytest.raises(InUse, match="module m of device pump-1"):
        images.delete_version(records, Reference("shuttle", image.version))
    twins.put_desired(records, lease, desired(records, device, 2), 1, b"empty")
    images.delete_version(records, Reference("shuttle", image.version))
    assert fleet.get(records, "pump-1", NOW).desired_version == 2


def test_a_hub_that_lost_its_lease_writes_nothing(records: Connection) -> None:
    device = enroll(records, "pump-1")
    edge_deployments.put(records, manifest("d"), NOW)
    old = leases.acquire(records, "hub", "me", 60, NOW)
    assert leases.acquire(records, "hub", "other", 60, after(61)) is not None
    assert old is not None
    with pytest.raises(LeaseLost):
        twins.put_desired(records, old, desired(records, device), 1, b"envelope")
    assert twins.desired_envelopes(records) == {}


def test_an_edge_deployment_counts_its_changes(records: Connection) -> None:
    first = edge_deployments.put(records, manifest("d", m=["a"]), NOW)
    assert (first.revision, first.created_at) == (1, NOW)
    assert edge_deployments.put(records, manifest("d", m=["a"]), after(5)) == first
    second = edge_deployments.put(records, manifest("d", "", 3, m=["b"]), after(5))
    assert (second.revision, second.created_at, second.target) == (2, NOW, "")
    assert edge_deployments.get(records, "d") == second
    edge_deployments.put(records, manifest("e"), NOW)
    assert edge_deployments.page(records, 1, None) == ([second], "d")
    assert [one.name for one in edge_deployments.page(records, 5, "d")[0]] == ["e"]


def test_deleting_an_edge_deployment_takes_it_from_its_devices(records: Connection) -> None:
    device = enroll(records, "pump-1")
    edge_deployments.put(records, manifest("d"), NOW)
    records.execute(update(twins_table).where(twins_table.c.device_uuid == device.uuid).values(edge_deployment="d"))
    edge_deployments.remove(records, "d")
    assert records.execute(select(twins_table.c.edge_deployment)).scalar_one() is None
    with pytest.raises(RecordNotFound):
        edge_deployments.remove(records, "d")


KEY = StreamKey("u", "e1", "readings")


def store(series: Connection, first: int, last: int, key: StreamKey = KEY, module: str = "pump", now_ms: int = 7) -> None:
    tape = Tape(key.device_uuid, key.epoch, key.stream)
    tape.record(*(f'{{"n": {n}}}' for n in range(1, last + 1)), module=module)
    telemetry.add_messages(series, [Arrived(key, message) for message in tape.messages[first - 1 : last]], now_ms)
    telemetry.put_marks(series, {key: Mark(last, tape.chains[last])}, now_ms)


def test_the_database_itself_refuses_a_message_twice(database: Database) -> None:
    with database.write_series() as series:
        store(series, 1, 3)
    with pytest.raises(IntegrityError), database.write_series() as series:
        store(series, 3, 4)
    with database.read_series() as series:
        assert telemetry.marks(series, [KEY], lock=False)[KEY].watermark == 3


def test_messages_are_found_by_device_and_module_in_order_of_arrival(series: Connection) -> None:
    store(series, 1, 3)
    store(series, 1, 2, StreamKey("v", "e1", "readings"), module="fan")
    found = telemetry.after(series, 10, 0)
    assert [(row.device_uuid, row.sequence) for row in found] == [("u", 1), ("u", 2), ("u", 3), ("v", 1), ("v", 2)]
    assert [row.sequence for row in telemetry.after(series, 10, found[1].id, device_uuid="u")] == [3]
    assert [row.device_uuid for row in telemetry.after(series, 10, 0, module="fan")] == ["v", "v"]
    assert [(row.device_uuid, row.sequence) for row in telemetry.newest(series, 2)] == [("v", 1), ("v", 2)]


def test_totals_count_what_retention_has_forgotten_and_not_what_was_lost(series: Connection) -> None:
    store(series, 1, 3)
    telemetry.add_gaps(series, [GapRow(KEY, 4, 9, "quota"), GapRow(KEY, 10, 10, "expired")], 8)
    telemetry.put_marks(series, {KEY: Mark(10, "0" * 64)}, 8)
    (total,) = telemetry.totals(series)
    assert (total.stored, dict(total.lost)) == (3, {"quota": 6, "expired": 1})


def test_gaps_are_listed_newest_first_in_pages(series: Connection) -> None:
    for number in range(3):
        telemetry.add_gaps(series, [GapRow(KEY, 10 * number + 1, 10 * number + 5, "quota")], 100 + number // 2)
    first = telemetry.recorded_gaps(series, 2)
    assert [row.first_sequence for row in first] == [21, 11]
    cursor = GapCursor(first[-1].recorded_ms, "u", "e1", "readings", first[-1].first_sequence)
    assert [row.first_sequence for row in telemetry.recorded_gaps(series, 2, cursor)] == [1]
    assert telemetry.recorded_gaps(series, 2, device_uuid="nobody") == []
    assert telemetry.gap_between(series, KEY, 15, 20)
    assert not telemetry.gap_between(series, KEY, 16, 20)


def test_the_last_message_of_each_module(series: Connection) -> None:
    store(series, 1, 3)
    store(series, 1, 1, StreamKey("u", "e1", "alarms"), module="fan", now_ms=9)
    rows = telemetry.last_of_modules(series, "u", 100, 1000)
    assert {row.module: (row.body, row.received_ms) for row in rows} == {"pump": ('{"n": 3}', 7), "fan": ('{"n": 1}', 9)}
    assert [row.module for row in telemetry.last_of_modules(series, "u", 1, 1000)] == ["fan"]
    assert telemetry.last_of_modules(series, "u", 1, 3)[0].body is None
    assert telemetry.last_of_modules(series, "nobody", 10, 10) == []


def test_quarantine_has_an_end(series: Connection) -> None:
    kept = [telemetry.add_to_quarantine(series, "u", "why", b"what", 1) for _ in range(telemetry.MAX_QUARANTINED_PER_DEVICE + 2)]
    assert kept == [True] * telemetry.MAX_QUARANTINED_PER_DEVICE + [False, False]
    assert telemetry.add_to_quarantine(series, "v", "why", b"what", 1)


def test_text_that_postgresql_cannot_hold_is_stored_readably(series: Connection) -> None:
    tape = Tape("u")
    tape.record("a\0b")
    telemetry.add_messages(series, [Arrived(KEY, tape.messages[0])], 1)
    assert telemetry.contents(series, KEY, 1, 1) == {1: telemetry.content_of(tape.messages[0])}
