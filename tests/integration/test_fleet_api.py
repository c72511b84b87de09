"""Devices, edge deployments, telemetry and fleet metrics over the REST API of a real server."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hedgerow.contracts.api_fleet import Device, DeviceTwin, EdgePlan, EnrolledDevice
from hedgerow.contracts.document import decode
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.seal import device_key
from registry.hub.desired import DesiredStates
from registry.hub.notes import Notes
from registry.hub.sessions import lease_end
from registry.identity.signing_keys import read_signing_keys
from registry.store import fleet, telemetry, twins
from registry.store.database import Database, open_database
from registry.store.telemetry import Arrived, GapRow, Mark, StreamKey
from registry.wakeups_socket import SocketReceiver
from registry.workspace import Workspace, open_workspace
from tests.hub_parts import Tape, say_status
from tests.registry_server import Api, RunningServer, problem_of, running_server
from tests.registry_stores import add_image, add_model


@pytest.fixture
def workspace(server: RunningServer) -> Workspace:
    return open_workspace(server.workspace)


@pytest.fixture
def database(server: RunningServer) -> Iterator[Database]:
    """The server's own database, for what only the hub writes."""
    opened = open_database(None, server.workspace)
    yield opened
    opened.close()


@pytest.fixture
def woken(server: RunningServer) -> Iterator[SocketReceiver]:
    """Stands where the hub listens."""
    receiver = SocketReceiver(server.workspace / "run", "hub")
    yield receiver
    receiver.close()


def fresh(kind: str) -> str:
    """A name that no other test uses: they share the server."""
    return f"{kind}-{secrets.token_hex(4)}"


def enroll(api: Api, name: str, **tags: str) -> EnrolledDevice:
    answered = api.post("/api/v1/devices", json={"name": name, "tags": tags})
    assert answered.status_code == 201, answered.text
    assert answered.headers["cache-control"] == "no-store"
    return decode(answered.content, EnrolledDevice)


def body_of(name: str, target: str = "*", priority: int = 0, **modules: Any) -> dict[str, Any]:
    return {"name": name, "target": target, "priority": priority, "modules": modules}


def deploy(api: Api, body: dict[str, Any]) -> EdgeDeployment:
    answered = api.put(f"/api/v1/edge-deployments/{body['name']}", json=body)
    assert answered.status_code == 200, answered.text
    return decode(answered.content, EdgeDeployment)


def test_enrolment_gives_everything_that_an_agent_needs(
    api: Api, server: RunningServer, workspace: Workspace, woken: SocketReceiver
) -> None:
    name = fresh("pump")
    enrolled = enroll(api, name, site="north")
    config = enrolled.config
    assert (config.name, config.device_uuid, config.tags) == (name, enrolled.device.uuid, {"site": "north"})
    assert (config.workspace_id, config.topic_prefix) == (workspace.id, workspace.topic_prefix)
    assert (config.registry_url, config.trusted_keys) == (server.url, [workspace.trusted_key])
    assert config.key_bytes() == device_key(workspace.device_master, config.device_uuid, 1)
    assert config.broker_url.startswith("mqtt://")
    assert woken.wait(30)
    listed = {device["name"]: device for device in api.get("/api/v1/devices?limit=1000").json()["items"]}
    assert listed[name]["tags"] == {"site": "north"}
    for path in (f"/api/v1/devices/{name}", "/api/v1/devices", f"/api/v1/devices/{name}/twin"):
        shown = api.get(path).text
        assert config.device_key not in shown
        assert config.pull_token not in shown


def test_a_device_token_pulls_and_does_nothing_else(api: Api, server: RunningServer) -> None:
    config = enroll(api, fresh("pump")).config
    with server.client(config.pull_token) as device:
        assert device.get("/v2/").status_code == 200
        assert device.get("/api/v1/devices").status_code == 403
        assert device.post("/api/v1/devices", json={"name": fresh("pump")}).status_code == 403


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "Pump 1"}, "invalid_document"),
        ({"name": "pump", "tags": {"a": 1}}, "invalid_document"),
        ({"name": "pump", "colour": "red"}, "invalid_document"),
        ({}, "invalid_document"),
    ],
)
def test_wrong_enrolments_are_refused_with_words(api: Api, body: dict[str, Any], code: str) -> None:
    answered = api.post("/api/v1/devices", json=body)
    assert answered.status_code == 400
    assert problem_of(answered)["code"] == code


def test_names_are_unique_and_absent_ones_are_named(api: Api) -> None:
    name = fresh("pump")
    enroll(api, name)
    taken = api.post("/api/v1/devices", json={"name": name})
    assert (taken.status_code, problem_of(taken)["code"]) == (409, "name_taken")
    for path in ("", "/twin"):
        absent = api.get(f"/api/v1/devices/{fresh('absent')}{path}")
        assert (absent.status_code, problem_of(absent)["code"]) == (404, "not_found")
    assert api.get("/api/v1/devices/Not A Name").status_code == 400


def test_readers_read_and_contributors_write(api: Api, server: RunningServer) -> None:
    name = fresh("pump")
    enroll(api, name)
    with server.client(api.token("reader")) as reader:
        assert reader.get(f"/api/v1/devices/{name}").status_code == 200
        assert reader.get("/api/v1/telemetry").status_code == 200
        assert reader.post("/api/v1/devices", json={"name": fresh("pump")}).status_code == 403
        assert reader.delete(f"/api/v1/devices/{name}").status_code == 403
        assert reader.put("/api/v1/edge-deployments/d", json=body_of("d")).status_code == 403
    with server.client("") as nobody:
        assert nobody.get("/api/v1/devices").status_code == 401


def test_revoking_and_deleting_end_the_devices_credentials(api: Api, server: RunningServer) -> None:
    name = fresh("pump")
    first = enroll(api, name)
    revoked = decode(api.post(f"/api/v1/devices/{name}/revoke", json={}).content, Device)
    assert revoked.revoked_at is not None
    with server.client(first.config.pull_token) as device:
        assert device.get("/v2/").status_code == 401
    assert api.delete(f"/api/v1/devices/{name}").status_code == 204
    assert api.get(f"/api/v1/devices/{name}").status_code == 404
    second = enroll(api, name)
    assert second.device.uuid != first.device.uuid
    assert second.config.device_key != first.config.device_key
    kinds = [event["kind"] for event in api.get("/api/v1/fleet/events?limit=4").json()["items"]]
    assert kinds == ["enrolled", "deleted", "revoked", "enrolled"]


def test_events_come_in_pages(api: Api) -> None:
    name = fresh("pump")
    enroll(api, name)
    api.post(f"/api/v1/devices/{name}/revoke", json={})
    first = api.get(f"/api/v1/fleet/events?device={name}&limit=1").json()
    second = api.get(f"/api/v1/fleet/events?device={name}&limit=1&after={first['next']}").json()
    assert [page["items"][0]["kind"] for page in (first, second)] == ["revoked", "enrolled"]
    assert second["next"] is None
    assert api.get("/api/v1/fleet/events?after=x").status_code == 400


def test_a_deployment_is_stored_with_pinned_images_and_wakes_the_hub(api: Api, database: Database, woken: SocketReceiver) -> None:
    name, image = fresh("deployment"), fresh("image")
    with database.write() as connection:
        add_image(connection, image, add_model(connection, fresh("model")))
    stored = deploy(api, body_of(name, "", m={"image": image}))
    assert (stored.revision, stored.modules["m"].image) == (1, f"{image}:1")
    assert woken.wait(30)
    assert deploy(api, body_of(name, "", m={"image": image})).revision == 1
    assert deploy(api, body_of(name, "tags.none = 'x'", m={"image": image})).revision == 2
    assert decode(api.get(f"/api/v1/edge-deployments/{name}").content, EdgeDeployment).revision == 2
    assert name in [one["name"] for one in api.get("/api/v1/edge-deployments?limit=1000").json()["items"]]
    assert api.delete(f"/api/v1/edge-deployments/{name}").status_code == 204
    assert api.delete(f"/api/v1/edge-deployments/{name}").status_code == 404


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (body_of("d", "site = 'north'", m={"command": ["x"]}), "target_invalid", 400),
        (body_of("d", m={}), "manifest_invalid", 400),
        (body_of("d", m={"image": "absent:9"}), "not_found", 404),
        (body_of("d", m={"image": "no reference"}), "invalid_name", 400),
        (body_of("other", m={"command": ["x"]}), "invalid_document", 400),
        (body_of("d") | {"modules": {"Bad Name": {"command": ["x"]}}}, "invalid_document", 400),
        (body_of("d", m={"command": ["x"], "restart": "always"}), "invalid_document", 400),
    ],
)
def test_wrong_manifests_are_refused_with_words(api: Api, body: dict[str, Any], code: str, status: int) -> None:
    answered = api.put("/api/v1/edge-deployments/d", json=body)
    assert (answered.status_code, problem_of(answered)["code"]) == (status, code)
    assert api.get("/api/v1/edge-deployments/d").status_code == 404


def test_a_dry_run_says_what_would_change_and_changes_nothing(
    api: Api, database: Database, workspace: Workspace, woken: SocketReceiver
) -> None:
    name, site, device = fresh("deployment"), fresh("site"), fresh("pump")
    enroll(api, device, site=site)
    target = f"tags.site = '{site}'"
    deploy(api, body_of(name, target, m={"command": ["x"]}))
    signers = read_signing_keys(workspace.keys).signers("desired")
    DesiredStates(database, signers, "test", Notes()).settle(datetime.now(UTC), 0.0)
    while woken.wait(0.2):
        pass
    planned = api.put(
        f"/api/v1/edge-deployments/{name}?dry_run=true",
        json=body_of(name, target, m={"command": ["y"]}, n={"command": ["z"]}),
    )
    plan = decode(planned.content, EdgePlan)
    assert plan.targeted == [device]
    change = next(change for change in plan.changes if change.device == device)
    assert (change.edge_deployment, change.add, change.change, change.remove) == (name, ["n"], ["m"], [])
    removal = decode(api.delete(f"/api/v1/edge-deployments/{name}?dry_run=true").content, EdgePlan)
    assert [change.remove for change in removal.changes if change.device == device] == [["m"]]
    assert api.get(f"/api/v1/edge-deployments/{name}").json()["revision"] == 1
    assert not woken.wait(0.2)
    twin = decode(api.get(f"/api/v1/devices/{device}/twin").content, DeviceTwin)
    assert twin.desired is not None
    assert twin.desired.modules["m"].spec.command == ["x"]
    assert api.put(f"/api/v1/edge-deployments/{name}?dry_run=maybe", json=body_of(name)).status_code == 400


def store(database: Database, device_uuid: str, *bodies: str, module: str = "pump") -> None:
    tape = Tape(device_uuid, stream=module)
    tape.record(*bodies, module=module)
    key = StreamKey(device_uuid, tape.epoch, module)
    with database.write_series() as connection:
        telemetry.add_messages(connection, [Arrived(key, message) for message in tape.messages], 1_700_000_000_000)
        telemetry.add_gaps(connection, [GapRow(key, len(bodies) + 1, len(bodies) + 3, "quota")], 5)
        telemetry.put_marks(connection, {key: Mark(len(bodies) + 3, "0" * 64)}, 5)


def test_telemetry_is_followed_from_where_one_stopped(api: Api, database: Database) -> None:
    name = fresh("pump")
    uuid = enroll(api, name).device.uuid
    store(database, uuid, *(f'{{"n": {n}}}' for n in range(1, 6)))
    newest = api.get(f"/api/v1/telemetry?device={name}&limit=2").json()
    assert [item["body"] for item in newest["items"]] == ['{"n": 4}', '{"n": 5}']
    first = api.get(f"/api/v1/telemetry?device={name}&module=pump&limit=3&after=0").json()
    rest = api.get(f"/api/v1/telemetry?device={name}&limit=100&after={first['next']}").json()
    assert [item["sequence"] for item in [*first["items"], *rest["items"]]] == [1, 2, 3, 4, 5]
    empty = api.get(f"/api/v1/telemetry?device={name}&after={rest['next']}").json()
    assert (empty["items"], empty["next"]) == ([], rest["next"])
    assert api.get(f"/api/v1/telemetry?device={name}&module=fan").json()["items"] == []
    assert api.get(f"/api/v1/telemetry?device={fresh('absent')}").status_code == 404
    for wrong in ("after=x", "after=99999999999999999999", "module=No%20Name", "limit=0"):
        assert api.get(f"/api/v1/telemetry?{wrong}").status_code == 400


def test_telemetry_outlives_its_device(api: Api, database: Database) -> None:
    name = fresh("pump")
    uuid = enroll(api, name).device.uuid
    store(database, uuid, "{}")
    api.delete(f"/api/v1/devices/{name}")
    assert uuid in [item["device"] for item in api.get("/api/v1/telemetry?limit=1000").json()["items"]]


def test_gaps_are_listed_with_their_reason(api: Api, database: Database) -> None:
    name = fresh("pump")
    uuid = enroll(api, name).device.uuid
    store(database, uuid, "{}")
    store(database, uuid, "{}", module="fan")
    first = api.get(f"/api/v1/telemetry/gaps?device={name}&limit=1").json()
    second = api.get(f"/api/v1/telemetry/gaps?device={name}&limit=1&after={first['next']}").json()
    found = [*first["items"], *second["items"]]
    assert {gap["stream"] for gap in found} == {"pump", "fan"}
    assert [(gap["device"], gap["first_sequence"], gap["last_sequence"], gap["reason"]) for gap in found] == [
        (name, 2, 4, "quota"),
        (name, 2, 4, "quota"),
    ]
    assert second["next"] is None
    assert api.get("/api/v1/telemetry/gaps?after=1,2").status_code == 400


def test_the_fleet_in_metrics(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, server.client() as api:
        pump, silent = enroll(api, "pump").device.uuid, enroll(api, "silent").device.uuid
        enroll(api, "revoked")
        api.post("/api/v1/devices/revoked/revoke", json={})
        database = open_database(None, server.workspace)
        now = datetime.now(UTC)
        with database.write() as connection:
            twins.put_session(connection, pump, twins.Session("s", "a", 1, lease_end(now)))
            twins.put_report(connection, say_status(pump, "s", 1, m="running", n="backoff"), now)
            assert fleet.get(connection, "pump", now).online
        store(database, pump, '{"n": 1}', '{"t": {"mean": 21.5}, "ok": true}')
        store(database, silent, "not json")
        database.close()
        assert api.get("/api/v1/devices/pump").json()["online"] is True
        text = api.get("/metrics").text
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(("hedgerow_device", "hedgerow_telemetry", "hedgerow_module"))
    }
    assert values.pop(("hedgerow_device_seen_timestamp_seconds", "pump")) == pytest.approx(now.timestamp(), abs=1)
    assert values == {
        ("hedgerow_devices_waiting_for_signature",): 0,
        ("hedgerow_device_online", "pump"): 1,
        ("hedgerow_device_online", "silent"): 0,
        ("hedgerow_device_desired_version", "pump"): 0,
        ("hedgerow_device_desired_version", "silent"): 0,
        ("hedgerow_device_desired_code", "pump"): 200,
        ("hedgerow_module_state", "m", "pump", "running"): 1,
        ("hedgerow_module_state", "backoff", "n", "pump"): 1,
        ("hedgerow_devices", "online"): 1,
        ("hedgerow_devices", "silent"): 1,
        ("hedgerow_module_running", "m", "pump"): 1,
        ("hedgerow_module_running", "n", "pump"): 0,
        ("hedgerow_module_restarts", "m", "pump"): 2,
        ("hedgerow_module_restarts", "n", "pump"): 2,
        ("hedgerow_telemetry_messages_total", "pump"): 2,
        ("hedgerow_telemetry_messages_total", "silent"): 1,
        ("hedgerow_telemetry_gap_messages_total", "pump", "quota"): 3,
        ("hedgerow_telemetry_gap_messages_total", "quota", "silent"): 3,
        ("hedgerow_device_last_telemetry_timestamp_seconds", "pump"): 1_700_000_000,
        ("hedgerow_device_last_telemetry_timestamp_seconds", "silent"): 1_700_000_000,
        ("hedgerow_telemetry_value", "pump", "pump", "t.mean"): 21.5,
        ("hedgerow_telemetry_value", "ok", "pump", "pump"): 1,
    }


def test_the_key_in_a_config_is_what_its_contract_says(api: Api) -> None:
    config = enroll(api, fresh("pump")).config
    assert len(base64.b64decode(config.device_key, validate=True)) == 32
