"""Twins of modules at the hub, on SQLite and PostgreSQL: what is taken, what is answered, what operators change, versions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredState, EdgeDeployment
from hedgerow.contracts.seal import device_key, seal, unseal
from hedgerow.contracts.telemetry import Welcome
from hedgerow.contracts.twins import MAX_REPORTED_BYTES, TwinAck, TwinReport
from registry.hub.desired import DesiredStates, read_envelope
from registry.hub.intake import Handled, Intake
from registry.hub.link import Uplink
from registry.hub.notes import Notes
from registry.hub.preview import preview
from registry.store import edge_deployments, facts, fleet, module_twins
from registry.store.database import Database
from tests.hub_parts import manifest, say_hello
from tests.registry_stores import BACKENDS, NOW, ready_database

MASTER = b"m" * 32


@dataclass
class Place:
    """A hub without a broker, and one device "pump" that should run modules m and n."""

    database: Database
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    notes: Notes = field(default_factory=Notes)

    def __post_init__(self) -> None:
        self.desired = DesiredStates(self.database, {"k": self.key.sign}, "me", self.notes)
        self.intake = Intake(self.database, MASTER, self.notes)
        with self.database.write() as connection:
            self.uuid = fleet.enroll(connection, EnrollDevice(name="pump"), NOW).uuid
        self.deploy(msgspec.structs.replace(manifest("base", m=["x"], n=["y"]), twins={"m": {"rate": 1, "deep": {"a": 1}}}))
        self.session = ""
        self.greet()

    def deploy(self, wanted: EdgeDeployment) -> DesiredState | None:
        with self.database.write() as connection:
            edge_deployments.put(connection, wanted, NOW)
        return self.settle()

    def settle(self, **accepted: int) -> DesiredState | None:
        """What is published for the device, None for nothing."""
        known = {self.uuid: accepted["accepted"]} if accepted else None
        found = self.desired.settle(NOW, 0.0, only=known, accepted=known)
        return read_envelope(found[-1].payload) if found else None

    def patch(self, module: str, patch: dict[str, Any]) -> None:
        with self.database.write() as connection:
            module_twins.put_patch(connection, self.uuid, module, patch)

    def greet(self, **changes: object) -> Welcome:
        welcome: Welcome
        [welcome] = self.opened(self.handle("hello", say_hello(self.uuid, **changes)), "welcome", Welcome)
        self.session = welcome.session or ""
        return welcome

    def handle(self, leaf: str, *documents: msgspec.Struct) -> Handled:
        key = device_key(MASTER, self.uuid, fleet.FIRST_KEY_GENERATION)
        uplinks = [Uplink(self.uuid, leaf, seal(key, self.uuid, leaf, encode(document))) for document in documents]
        return self.intake.handle(uplinks, NOW, 0.0)

    def opened(self, handled: Handled, leaf: str, kind: type[Any]) -> list[Any]:
        key = device_key(MASTER, self.uuid, fleet.FIRST_KEY_GENERATION)
        return [
            msgspec.json.decode(unseal(key, self.uuid, leaf, answer.payload), type=kind)
            for answer in handled.answers
            if answer.leaf == leaf
        ]

    def make(self, version: int, reported: object, *, base: int | None = None, **changes: object) -> TwinReport:
        report = TwinReport(
            device_uuid=self.uuid,
            session=self.session,
            epoch="e",
            module="m",
            version=version,
            base_version=base,
            reported=reported,  # type: ignore[arg-type]  # objects, in these tests
        )
        return msgspec.structs.replace(report, **changes)

    def report(self, *reports: TwinReport) -> list[TwinAck]:
        return self.opened(self.handle("twins", *reports), "twin-acks", TwinAck)

    def stored(self, module: str = "m") -> tuple[str, int, dict[str, Any]]:
        with self.database.read() as connection:
            row = module_twins.of_device(connection, self.uuid).get(module, module_twins.NOTHING)
        return row.epoch, row.reported_version, row.reported

    def kinds(self) -> list[str]:
        with self.database.read() as connection:
            return [event.kind for event in fleet.events_before(connection, 100) if event.kind != "enrolled"]


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as database:
        yield Place(database)


def test_a_hub_says_that_it_reads_twins(place: Place) -> None:
    assert place.greet().reads_twins


def test_wholes_and_patches_are_applied_in_order_and_acknowledged(place: Place) -> None:
    acks = place.report(
        place.make(1, {"a": {"b": 1, "c": 2}}),
        place.make(2, {"a": {"b": None}}, base=1),
        place.make(5, {"d": [None, 1.0]}, base=2),
    )
    assert [ack.version for ack in acks] == [1, 2, 5]
    assert place.stored() == ("e", 5, {"a": {"c": 2}, "d": [None, 1.0]})
    assert place.report(place.make(6, {}, base=6)) == [msgspec.structs.replace(acks[-1], version=5)]
    assert place.notes.counts["twin-reports"] == 1


def test_what_does_not_fit_changes_nothing_and_is_told_where_the_hub_stands(place: Place) -> None:
    place.report(place.make(3, {"a": 1}))
    late, gap, other = place.report(
        place.make(2, {"a": 0}), place.make(5, {"a": 5}, base=4), place.make(9, {"a": 9}, base=3, epoch="f")
    )
    assert (late.version, late.epoch, gap.version, other.version, other.epoch) == (3, "e", 3, 0, "f")
    assert place.stored() == ("e", 3, {"a": 1})
    assert late.digest == gap.digest != other.digest
    [anew] = place.report(place.make(1, {"z": 1}, epoch="f"))
    assert (anew.version, place.stored()) == (1, ("f", 1, {"z": 1}))


def test_another_session_is_not_heard(place: Place) -> None:
    before = place.session
    place.greet(instance="b", starts=2)
    assert place.report(place.make(1, {"a": 1}, session=before)) == []
    assert place.stored() == ("", 0, {})


def test_a_module_that_the_device_should_not_have_is_not_kept(place: Place) -> None:
    assert place.report(place.make(1, {"a": 1}, module="stranger")) == []
    with place.database.read() as connection:
        assert module_twins.of_device(connection, place.uuid) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"epoch": ""},
        {"epoch": "e\0"},
        {"epoch": "e" * 200},
        {"reported": {"a": "\0"}},
        {"reported": {"a": 2**70}},
    ],
)
def test_what_cannot_be_stored_is_dropped_and_told(place: Place, changes: dict[str, Any]) -> None:
    assert place.report(msgspec.structs.replace(place.make(1, {}), **changes)) == []
    assert place.kinds() == ["malformed"]


def test_a_twin_does_not_grow_without_bound(place: Place) -> None:
    half = "x" * (MAX_REPORTED_BYTES // 2)
    assert [ack.version for ack in place.report(place.make(1, {"a": half}), place.make(2, {"b": half}, base=1))] == [1]
    assert (place.stored()[1], place.kinds()) == (1, ["malformed"])


def test_what_a_module_reported_goes_with_it_and_its_patch_stays(place: Place) -> None:
    place.report(place.make(1, {"a": 1}), place.make(1, {"b": 1}, module="n"))
    place.patch("n", {"x": 1})
    assert place.deploy(msgspec.structs.replace(manifest("base", m=["x"]), twins={"m": {"rate": 1, "deep": {"a": 1}}}))
    assert (place.stored()[1], place.stored("n")) == (1, ("", 0, {}))
    back = place.deploy(manifest("base", m=["x"], n=["y"]))
    assert back is not None
    assert back.twins == {"n": {"x": 1}}


def test_a_patch_lies_on_top_of_what_deployments_say_and_counts_the_twin_up(place: Place) -> None:
    place.patch("m", {"deep": {"b": 2}, "rate": 7})
    place.patch("n", {"new": True})
    place.patch("stranger", {"x": 1})
    state = place.settle()
    assert state is not None
    assert state.twins == {"m": {"rate": 7, "deep": {"a": 1, "b": 2}}, "n": {"new": True}}
    assert state.twin_versions == {"m": 2, "n": 1}
    assert place.settle() is None
    place.patch("m", {})
    back = place.settle()
    assert back is not None
    assert (back.twins["m"], back.twin_versions) == ({"rate": 1, "deep": {"a": 1}}, {"m": 3, "n": 1})


def test_a_plan_counts_patches_in(place: Place) -> None:
    place.patch("m", {"rate": 7})
    assert place.settle() is not None
    with place.database.read() as connection:
        deployments = edge_deployments.every(connection)
        assert preview(connection, deployments, "base").changes == []
        slower = [msgspec.structs.replace(one, twins={"m": {"rate": 2, "deep": {"a": 1}}}) for one in deployments]
        assert preview(connection, slower, "base").changes == []  # what is patched lies above it
        deeper = [msgspec.structs.replace(one, twins={"m": {"rate": 1, "deep": {"a": 2}}}) for one in deployments]
        assert [change.twins for change in preview(connection, deeper, "base").changes] == [["m"]]


def test_a_version_never_goes_back_after_a_backup_was_restored(place: Place) -> None:
    """The device says that it accepted versions which the restored hub knows nothing of."""
    before = place.deploy(msgspec.structs.replace(manifest("base", m=["x"]), twins={"m": {"rate": 2}}))
    assert before is not None
    assert (before.version, before.twin_versions) == (2, {"m": 2})
    with place.database.write() as connection:
        facts.renew_incarnation(connection)
    again = place.settle(accepted=5)
    assert again is not None
    assert (again.version, again.twin_versions) == (6, {"m": 6})


def test_two_hubs_that_take_reports_of_one_module_at_once_lose_none(place: Place) -> None:
    place.report(place.make(1, {"n": 0}))
    hubs = [Intake(place.database, MASTER, Notes()) for _ in range(2)]
    key = device_key(MASTER, place.uuid, fleet.FIRST_KEY_GENERATION)
    waiting = list(range(2, 22))
    begin, lock = threading.Barrier(2), threading.Lock()

    def work(hub: Intake) -> None:
        begin.wait(30)
        while True:
            with lock:
                if not waiting:
                    return
                version = waiting.pop(0)
            sealed = seal(key, place.uuid, "twins", encode(place.make(version, {f"k{version}": version, "n": version})))
            hub.handle([Uplink(place.uuid, "twins", sealed)], NOW, 0.0)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, hubs))
    assert place.stored() == ("e", 21, {"k21": 21, "n": 21})
