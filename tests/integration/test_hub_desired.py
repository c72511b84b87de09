"""Desired states: composed, signed, stored under a lease, and only when something changed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.desired_reference import read_reference, reference_to
from hedgerow.contracts.edge import DesiredState, EdgeDeployment, ModuleSpec, Route
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE, Reference
from hedgerow.contracts.signed import SignatureRefused, SignedEnvelope, open_signed
from hedgerow.errors import HedgerowError
from registry.errors import InUse, RecordNotFound
from registry.hub.desired import DesiredStates, read_envelope
from registry.hub.errors import ManifestInvalid, TargetInvalid
from registry.hub.link import Downlink
from registry.hub.manifest import check_manifest
from registry.hub.notes import Notes
from registry.hub.preview import preview
from registry.store import edge_deployments, facts, fleet, images, leases, twins
from registry.store.database import Database
from registry.store.events import system
from tests.hub_parts import manifest, say_status
from tests.registry_stores import BACKENDS, NOW, add_image, add_model, after, ready_database


@dataclass
class Place:
    database: Database
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    notes: Notes = field(default_factory=Notes)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.desired = DesiredStates(self.database, {"k": self.key.sign}, "me", self.notes)

    def enroll(self, name: str, **tags: str) -> str:
        with self.database.write() as connection:
            return fleet.enroll(connection, EnrollDevice(name=name, tags=tags), NOW).uuid

    def deploy(self, wanted: EdgeDeployment) -> EdgeDeployment:
        with self.database.write() as connection:
            return edge_deployments.put(connection, check_manifest(connection, wanted), self.now)

    def settle(self) -> dict[str, DesiredState]:
        """What is published because of what changed, by device."""
        return {downlink.device_uuid: self.open(downlink) for downlink in self.desired.settle(self.now, 0.0)}

    def open(self, downlink: Downlink) -> DesiredState:
        assert (downlink.leaf, downlink.retain) == ("desired", True)

        def verify(signature: bytes, message: bytes) -> bool:
            self.key.public_key().verify(signature, message)
            return True

        payload = open_signed(downlink.payload, PAYLOAD_DESIRED_STATE, {"k": verify})
        return msgspec.json.decode(payload, type=DesiredState)


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as database:
        yield Place(database)


def modules(state: DesiredState) -> dict[str, list[str]]:
    return {name: module.spec.command for name, module in state.modules.items()}


def test_each_device_gets_what_is_meant_for_it_and_only_once(place: Place) -> None:
    north, south = place.enroll("a", site="north"), place.enroll("b", site="south")
    place.enroll("c")
    place.deploy(manifest("all-north", "tags.site = 'north'", m=["x"]))
    place.deploy(manifest("south", "tags.site = 'south'", m=["y"]))
    published = place.settle()
    assert {uuid: modules(state) for uuid, state in published.items()} == {north: {"m": ["x"]}, south: {"m": ["y"]}}
    assert all(state.version == 1 and state.device_uuid == uuid for uuid, state in published.items())
    assert place.settle() == {}
    assert {downlink.device_uuid for downlink in place.desired.stored()} == {north, south}


def test_a_change_is_a_new_version_for_those_it_concerns(place: Place) -> None:
    north, south = place.enroll("a", site="north"), place.enroll("b", site="south")
    place.deploy(manifest("base", m=["x"]))
    assert set(place.settle()) == {north, south}
    place.deploy(manifest("base", priority=1, m=["x"]))
    assert place.settle() == {}
    place.deploy(manifest("special", "tags.site='south'", 2, m=["y"]))
    published = place.settle()
    assert {uuid: (state.version, modules(state)) for uuid, state in published.items()} == {south: (2, {"m": ["y"]})}


def test_a_device_whose_deployment_goes_falls_back_and_is_emptied_at_last(place: Place) -> None:
    uuid = place.enroll("a")
    place.deploy(manifest("base", m=["x"]))
    place.deploy(manifest("special", priority=1, m=["y"]))
    assert modules(place.settle()[uuid]) == {"m": ["y"]}
    for name, left in (("special", {"m": ["x"]}), ("base", {})):
        with place.database.write() as connection:
            edge_deployments.remove(connection, name)
        assert modules(place.settle()[uuid]) == left
    with place.database.read() as connection:
        assert (fleet.get(connection, "a", NOW).desired_version, place.settle()) == (3, {})


def test_images_are_pinned_when_the_manifest_comes(place: Place) -> None:
    with place.database.write() as connection:
        image = add_image(connection, "shuttle", add_model(connection))
    wanted = msgspec.structs.replace(manifest("d"), modules={"m": ModuleSpec(image="shuttle")})
    assert place.deploy(wanted).modules["m"].image == "shuttle:1"
    with place.database.write() as connection:
        add_image(connection, "shuttle", manifest='{"v": 2}')
    uuid = place.enroll("a")
    pin = place.settle()[uuid].modules["m"].image
    assert pin is not None
    assert (pin.version, pin.digest) == (1, image.digest)
    with place.database.write() as connection, pytest.raises(InUse):
        images.delete_version(connection, Reference("shuttle", 1))


def test_a_vanished_image_leaves_the_device_as_it_is_and_is_reported(place: Place) -> None:
    uuid = place.enroll("a")
    with place.database.write() as connection:
        add_image(connection, "shuttle", add_model(connection))
        edge_deployments.put(connection, manifest("base", m=["x"]), NOW)
    place.settle()
    wanted = msgspec.structs.replace(manifest("d", priority=1), modules={"m": ModuleSpec(image="shuttle:1")})
    place.deploy(wanted)
    with place.database.write() as connection:
        images.force_delete(connection, Reference("shuttle", 1), system("test"), NOW)
    assert place.settle() == {}
    assert [(event.kind, event.device_uuid) for event in place.notes.pending] == [("image-missing", uuid)]
    with place.database.read() as connection:
        assert fleet.get(connection, "a", NOW).edge_deployment == "base"


def test_a_hello_gets_the_stored_state_and_a_higher_version_after_a_restore(place: Place) -> None:
    uuid = place.enroll("a")
    place.deploy(manifest("base", m=["x"]))
    place.settle()
    assert [place.open(one).version for one in place.desired.for_greeted({uuid: 0}, NOW, 0.0)] == [1]
    assert place.desired.for_greeted({uuid: 1}, NOW, 0.0) == []
    assert [place.open(one).version for one in place.desired.for_greeted({uuid: 5}, NOW, 0.0)] == [6]
    with place.database.write() as connection:
        incarnation = facts.renew_incarnation(connection)
    (restored,) = (place.open(one) for one in place.desired.for_greeted({uuid: 0}, NOW, 0.0))
    assert (restored.version, restored.incarnation) == (7, incarnation)


def test_a_device_that_is_gone_loses_its_retained_message(place: Place) -> None:
    kept, revoked, deleted = (place.enroll(name) for name in ("kept", "revoked", "deleted"))
    place.deploy(manifest("base", m=["x"]))
    assert set(place.settle()) == {kept, revoked, deleted}
    with place.database.write() as connection:
        fleet.revoke(connection, "revoked", NOW)
        fleet.forget(connection, "deleted", NOW)
    withdrawn = place.desired.settle(NOW, 0.0)
    assert {downlink.device_uuid for downlink in withdrawn} == {revoked, deleted}
    assert all(downlink.payload == b"" and downlink.retain for downlink in withdrawn)
    assert place.desired.settle(NOW, 0.0) == []
    assert [downlink.device_uuid for downlink in place.desired.stored()] == [kept]


def test_while_another_hub_is_in_charge_nothing_is_written(place: Place) -> None:
    uuid = place.enroll("a")
    place.deploy(manifest("base", m=["x"]))
    with place.database.write() as connection:
        leases.acquire(connection, "hub", "another", 60, NOW)
    assert place.settle() == {}
    place.now = after(61)
    assert set(place.settle()) == {uuid}
    with place.database.read() as connection:
        assert twins.desired_envelopes(connection).keys() == {uuid}


def test_a_signature_covers_the_exact_bytes(place: Place) -> None:
    place.enroll("a")
    place.deploy(manifest("base", m=["x"]))
    (downlink,) = place.desired.settle(NOW, 0.0)
    envelope = msgspec.json.decode(downlink.payload, type=SignedEnvelope)
    altered = base64.b64decode(envelope.payload).replace(b'"x"', b'"y"')
    forged = msgspec.json.encode(msgspec.structs.replace(envelope, payload=base64.b64encode(altered).decode()))
    assert modules(read_envelope(forged)) == {"m": ["y"]}

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            place.key.public_key().verify(signature, message)
        except InvalidSignature:
            return False
        return True

    with pytest.raises(SignatureRefused):
        open_signed(forged, PAYLOAD_DESIRED_STATE, {"k": verify})


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"target": "site = 1"}, TargetInvalid, "position 1"),
        ({"modules": {"m": ModuleSpec()}}, ManifestInvalid, "either an image or a command"),
        ({"modules": {"m": ModuleSpec(image="a", command=["b"])}}, ManifestInvalid, "either an image or a command"),
        ({"modules": {"m": ModuleSpec(kind="docker")}}, ManifestInvalid, "has no image"),
        ({"modules": {"m": ModuleSpec(image="absent:3")}}, RecordNotFound, "absent:3"),
        (
            {"modules": {"m": ModuleSpec(kind="docker", image="shuttle")}},
            ManifestInvalid,
            'of kind onnx, which needs kind = "process"',
        ),
        ({"modules": {"m": ModuleSpec(command=["x" * 5_000_000])}}, ManifestInvalid, "the limit is"),
    ],
)
def test_a_manifest_that_cannot_work_is_refused_at_once(
    place: Place, changes: dict[str, object], error: type[HedgerowError], words: str
) -> None:
    with place.database.write() as connection:
        add_image(connection, "shuttle", add_model(connection))
        with pytest.raises(error, match=words):
            check_manifest(connection, msgspec.structs.replace(manifest("d"), **changes))


def test_a_preview_names_devices_and_modules_and_touches_nothing(place: Place) -> None:
    place.enroll("a", site="north")
    place.enroll("b", site="south")
    place.deploy(manifest("base", m=["x"], old=["o"]))
    place.settle()
    new = msgspec.structs.replace(manifest("new", "tags.site='north'", 1, m=["y"], extra=["e"]), created_at=NOW)
    with place.database.read() as connection:
        plan = preview(connection, [*edge_deployments.every(connection), new], "new")
        gone = preview(connection, [], "base")
    assert plan.targeted == ["a"]
    (change,) = plan.changes
    assert (change.device, change.edge_deployment) == ("a", "new")
    assert (change.add, change.change, change.remove) == (["extra"], ["m"], ["old"])
    assert [(change.device, change.edge_deployment, change.remove) for change in gone.changes] == [
        ("a", None, ["m", "old"]),
        ("b", None, ["m", "old"]),
    ]
    assert place.settle() == {}


def test_a_layer_reaches_devices_and_leaves_them_again(place: Place) -> None:
    uuid = place.enroll("a", site="north")
    route = Route(route="FROM /messages/* INTO $upstream")
    foreign = ModuleSpec(kind="docker", image=f"registry.example/team/camera:2@sha256:{'a' * 64}")
    base = msgspec.structs.replace(manifest("base", m=["x"]), twins={"m": {"rate": 1}})
    top = EdgeDeployment(
        name="top",
        target="*",
        priority=1,
        layered=True,
        modules={"camera": foreign},
        routes={"up": route},
        twins={"m": {"on": True}},
    )
    place.deploy(top)
    assert place.settle() == {}
    place.deploy(base)
    state = place.settle()[uuid]
    assert (sorted(state.modules), state.routes, state.twins) == (["camera", "m"], {"up": route}, {"m": {"rate": 1, "on": True}})
    pin = state.modules["camera"].image
    assert pin is not None
    assert (pin.reference, pin.name, state.edge_deployment) == ("registry.example/team/camera:2", "camera", "base")
    assert place.settle() == {}
    place.deploy(msgspec.structs.replace(top, routes={}))
    assert place.settle()[uuid].routes == {}
    with place.database.write() as connection:
        edge_deployments.remove(connection, "top")
    left = place.settle()[uuid]
    assert (sorted(left.modules), left.twins, left.version) == (["m"], {"m": {"rate": 1}}, 3)


def test_what_a_device_reports_decides_at_the_next_look(place: Place) -> None:
    uuid = place.enroll("a")
    place.deploy(manifest("base", m=["x"]))
    place.deploy(manifest("new-agents", "properties.reported.agent_version = '2'", 1, m=["y"]))
    assert modules(place.settle()[uuid]) == {"m": ["x"]}
    report = msgspec.structs.replace(say_status(uuid, "s", 1, m="running"), agent_version="2")
    with place.database.write() as connection:
        twins.put_report(connection, report, NOW)
    assert modules(place.settle()[uuid]) == {"m": ["y"]}


def test_more_than_a_message_carries_is_named_by_its_hash_for_the_device_to_fetch(place: Place) -> None:
    uuid = place.enroll("a")
    large = {"text": "x" * 450_000}
    place.deploy(msgspec.structs.replace(manifest("base", m=["x"]), twins={"m": {"one": large}}))
    assert set(place.settle()) == {uuid}
    place.deploy(EdgeDeployment(name="top", target="*", layered=True, modules={}, twins={"m": {"other": large}}))
    [downlink] = place.desired.settle(place.now, 0.0)
    with place.database.read() as connection:
        envelope = twins.desired_envelopes(connection)[uuid]
    reference = read_reference(downlink.payload)
    assert reference == reference_to(envelope, uuid, 2)
    assert read_envelope(envelope).twins["m"] == {"one": large, "other": large}
    assert [again.payload for again in place.desired.stored()] == [downlink.payload]
    assert [again.payload for again in place.desired.for_greeted({uuid: 1}, place.now, 0.0)] == [downlink.payload]


def test_more_than_the_ceiling_is_told_and_leaves_the_device_as_it_is(place: Place) -> None:
    place.enroll("a")
    place.deploy(manifest("base", m=["x"]))
    assert len(place.settle()) == 1
    for number in range(4):
        text = {"text": "x" * 3_500_000}
        place.deploy(
            EdgeDeployment(name=f"top-{number}", target="*", layered=True, modules={}, twins={"m": {f"k{number}": text}})
        )
    assert place.desired.settle(place.now, 0.0) == []
    assert any("bytes with all its layers" in note.reason for note in place.notes.pending)
