"""Edge deployments over the API of a real server: foreign images become digests, layers and routes are kept, plans name steps."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from hedgerow.contracts.api_fleet import EdgePlan, EnrolledDevice
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import DesiredState, EdgeDeployment
from hedgerow.contracts.iot_edge.read import read_iot_edge
from hedgerow.contracts.names import MEDIA_OCI_CONFIG, MEDIA_OCI_MANIFEST
from registry.hub.desired import DesiredStates, read_envelope
from registry.hub.notes import Notes
from registry.identity.signing_keys import read_signing_keys
from registry.store import twins
from registry.store.database import Database, open_database
from registry.workspace import open_workspace
from tests.fixtures.oci_registry import OciRegistry
from tests.hub_parts import say_status
from tests.registry_server import Api, RunningServer, problem_of, running_server
from tests.registry_stores import add_image, add_model

FIXTURES = Path(__file__).parents[1] / "fixtures" / "iot_edge"
PATH = "/api/v1/edge-deployments"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One that may ask registries on loopback."""
    with running_server(tmp_path_factory.mktemp("server"), "--egress-allow", "127.0.0.1") as running:
        yield running


@pytest.fixture
def database(server: RunningServer) -> Iterator[Database]:
    opened = open_database(None, server.workspace)
    yield opened
    opened.close()


def fresh(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(4)}"


def push(registry: OciRegistry, repository: str, tag: str, *, architecture: str = "amd64") -> str:
    """The digest of a small image without layers."""
    config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    digest = f"sha256:{sha256(config).hexdigest()}"
    described = {"mediaType": MEDIA_OCI_CONFIG, "digest": digest, "size": len(config)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MEDIA_OCI_MANIFEST, "config": described, "layers": []}).encode()
    base = f"http://{registry.address}/v2/{repository}"
    with httpx.Client() as client:
        begun = client.post(f"{base}/blobs/uploads/")
        put = client.put(httpx.URL(begun.headers["location"]).copy_merge_params({"digest": digest}), content=config)
        assert put.status_code == 201, put.text
        sent = client.put(f"{base}/manifests/{tag}", content=manifest, headers={"content-type": MEDIA_OCI_MANIFEST})
        assert sent.status_code == 201, sent.text
    return f"sha256:{sha256(manifest).hexdigest()}"


def deployed(api: Api, body: dict[str, Any]) -> EdgeDeployment:
    answered = api.put(f"{PATH}/{body['name']}", json=body)
    assert answered.status_code == 200, answered.text
    return decode(answered.content, EdgeDeployment)


def docker(name: str, image: str, target: str = "") -> dict[str, Any]:
    return {"name": name, "target": target, "modules": {"m": {"kind": "docker", "image": image}}}


def test_the_tag_of_another_registry_becomes_a_digest_that_stays(api: Api, docker_registry: OciRegistry) -> None:
    name, repository = fresh("line"), f"team/{fresh('app')}"
    first = push(docker_registry, repository, "1.4")
    image = f"{docker_registry.address}/{repository}:1.4"
    stored = deployed(api, docker(name, image))
    assert stored.modules["m"].image == f"{image}@{first}"
    assert deployed(api, docker(name, image)).revision == 1
    second = push(docker_registry, repository, "1.4", architecture="arm64")
    again = deployed(api, docker(name, image))
    assert (again.revision, again.modules["m"].image) == (2, f"{image}@{second}")
    assert deployed(api, docker(name, f"{image}@{first}")).modules["m"].image == f"{image}@{first}"


def test_a_registry_that_is_away_keeps_what_was_resolved_and_refuses_the_rest(api: Api) -> None:
    with socket.socket() as taken:
        # Bound, and never listened to: whoever calls is refused.
        taken.bind(("127.0.0.1", 0))
        _away(api, f"127.0.0.1:{taken.getsockname()[1]}")


def _away(api: Api, host: str) -> None:
    name = fresh("line")
    pinned = f"{host}/app:1.4@sha256:{'a' * 64}"
    assert deployed(api, docker(name, pinned)).modules["m"].image == pinned
    assert deployed(api, docker(name, f"{host}/app:1.4") | {"priority": 1}).modules["m"].image == pinned
    refused = problem_of(api.put(f"{PATH}/{name}", json=docker(name, f"{host}/app:1.5")))
    assert refused["code"] == "foreign_image_unresolved"
    assert "sha256" in refused["remedy"]


def test_an_image_of_this_very_registry_is_ours(api: Api, server: RunningServer, database: Database) -> None:
    with database.write() as connection:
        image = add_image(connection, fresh("shuttle"), add_model(connection))
    host, name = server.url.partition("://")[2], fresh("line")
    for written in (f"{host}/{image.name}:1", f"{host}/{image.name}", f"{host}/{image.name}@{image.digest}"):
        body = {"name": name, "target": "", "modules": {"m": {"image": written}}}
        assert deployed(api, body).modules["m"].image == f"{image.name}:1"


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ("10.1.2.3/app:1", "foreign_image_unresolved"),
        ("169.254.169.254/app:1", "foreign_image_unresolved"),
        ("a.example/App:1", "remote_reference_invalid"),
        ("../../etc/passwd", "remote_reference_invalid"),
        ("nginx:latest", "invalid_reference"),
    ],
)
def test_images_that_cannot_be_asked_for(api: Api, image: str, code: str) -> None:
    name = fresh("line")
    answered = api.put(f"{PATH}/{name}", json=docker(name, image))
    assert (problem_of(answered)["code"], answered.status_code) == (code, 400)


def test_an_unknown_tag_and_a_process_are_refused(api: Api, docker_registry: OciRegistry) -> None:
    name, image = fresh("line"), f"{docker_registry.address}/nowhere/app:1"
    assert problem_of(api.put(f"{PATH}/{name}", json=docker(name, image)))["code"] == "foreign_image_unresolved"
    process = {"name": name, "target": "", "modules": {"m": {"image": f"a.example/app@sha256:{'b' * 64}"}}}
    refused = problem_of(api.put(f"{PATH}/{name}", json=process))
    assert refused["code"] == "manifest_invalid"
    assert 'kind = "docker"' in refused["message"]


def test_a_token_for_some_images_may_not_name_those_of_others(api: Api, server: RunningServer) -> None:
    scopes = ["edge-deployments:*", "images:plant*", "devices:*"]
    with server.client(api.token("contributor", scopes=scopes)) as narrow:
        name = fresh("line")
        body = docker(name, f"plant.example:5000/app@sha256:{'b' * 64}")
        assert narrow.put(f"{PATH}/{name}", json=body).status_code == 403
    with server.client(api.token("contributor", scopes=[*scopes, "images:*"])) as wide:
        assert wide.put(f"{PATH}/{name}", json=body).status_code == 200


def settled(server: RunningServer, database: Database, device_uuid: str) -> DesiredState:
    """What the hub composes, signs and stores for a device."""
    key = open_workspace(server.workspace)
    DesiredStates(database, read_signing_keys(key.keys).signers("desired"), "test", Notes()).settle(datetime.now(UTC), 0.0)
    with database.read() as connection:
        return read_envelope(twins.desired_envelopes(connection, [device_uuid])[device_uuid])


def enroll(api: Api, name: str, **tags: str) -> str:
    answered = api.post("/api/v1/devices", json={"name": name, "tags": tags})
    return decode(answered.content, EnrolledDevice).device.uuid


def test_deployments_of_iot_edge_reach_a_device_as_base_and_layer(api: Api, server: RunningServer, database: Database) -> None:
    line = fresh("line")
    uuid = enroll(api, fresh("press"), line=line)
    target = f"tags.line = '{line}'"
    base = json.loads((FIXTURES / "temperature_sensor.json").read_text())
    modules = base["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    for number, module in enumerate(modules.values()):
        module["settings"]["image"] = f"registry.example/app{number}:1@sha256:{str(number) * 64}"
    for document, priority in ((base, 3), (json.loads((FIXTURES / "layered.json").read_text()), 7)):
        wanted, _ = read_iot_edge(document, fresh("deployment"), target, priority)
        stored = deployed(api, msgspec.to_builtins(wanted))
        assert stored.routes == wanted.routes
    state = settled(server, database, uuid)
    assert sorted(state.modules) == ["filtermodule", "simulatedtemperaturesensor", "vibration"]
    pin = state.modules["simulatedtemperaturesensor"].image
    assert pin is not None
    assert (pin.reference, pin.digest) == ("registry.example/app0:1", f"sha256:{'0' * 64}")
    assert sorted(state.routes) == ["alerts", "filterToHub", "sensorToFilter", "vibrationToUpstream"]
    assert state.twins["simulatedtemperaturesensor"] == {
        "SendData": True,
        "SendInterval": 1,
        "limits": {"high": 21.5, "low": 3},
    }
    assert state.telemetry.time_to_live_s == 7200


def test_a_plan_names_every_step_with_its_bytes(api: Api, server: RunningServer, database: Database) -> None:
    line, name = fresh("line"), fresh("deployment")
    device = fresh("press")
    uuid = enroll(api, device, line=line)
    others = [fresh("press") for _ in range(2)]
    for other in others:
        enroll(api, other, line=line)
    with database.write() as connection:
        image = add_image(connection, fresh("shuttle"), add_model(connection))
    target = f"tags.line = '{line}'"
    body = {"name": name, "target": target, "modules": {"a": {"command": ["x"]}, "gone": {"command": ["y"]}}}
    deployed(api, body)
    state = settled(server, database, uuid)
    with database.write() as connection:
        twins.put_report(connection, say_status(uuid, "s", 1, a="running", gone="running"), datetime.now(UTC))
    after = {
        **body,
        "modules": {"a": {"command": ["x2"]}, "b": {"image": image.name, "startup_order": 1}},
        "routes": {"up": {"route": "FROM /messages/* INTO $upstream"}},
    }
    plan = decode(api.put(f"{PATH}/{name}?dry_run=true&device={device}", json=after).content, EdgePlan)
    assert plan.targeted == [device]
    (change,) = plan.changes
    steps = [f"{step.action} {step.module or step.text}" for step in change.steps]
    assert steps[0] == "route up (new): FROM /messages/* INTO $upstream"
    # The image comes before anything that runs is stopped.
    assert steps.index("pull b") < steps.index("stop a") < steps.index("start a")
    assert {"stop gone", "remove gone", "start b"} <= set(steps)
    assert state.version == 1
    assert change.basis.startswith("its report of")
    whole = decode(api.put(f"{PATH}/{name}?dry_run=true&steps=true", json=after).content, EdgePlan)
    groups = {group.count: group for group in whole.groups if set(group.devices) & {device, *others}}
    assert (groups[1].devices, sorted(groups[2].devices)) == ([device], sorted(others))
    assert "stop" not in {step.action for step in groups[2].steps}
    assert api.get(f"{PATH}/{name}").json()["revision"] == 1
    assert api.put(f"{PATH}/{name}?dry_run=true&device=nobody", json=after).status_code == 404
    plain = decode(api.put(f"{PATH}/{name}?dry_run=true", json=after).content, EdgePlan)
    assert (plain.groups, [change.steps for change in plain.changes][:1]) == ([], [[]])


def test_a_route_that_cannot_be_read_is_refused_by_name(api: Api) -> None:
    name = fresh("line")
    body = {"name": name, "target": "", "modules": {}, "routes": {"up": {"route": "FROM /messages/*"}}}
    refused = problem_of(api.put(f"{PATH}/{name}", json=body))
    assert (refused["code"], "route up" in refused["message"]) == ("manifest_invalid", True)


def test_what_is_nested_beyond_all_reason_is_refused(api: Api) -> None:
    name = fresh("line")
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"x": deep}
    for body in (
        {"modules": {"m": {"command": ["x"]}}, "twins": {"m": deep}},
        {"modules": {"m": {"kind": "docker", "image": f"a.example/b@sha256:{'c' * 64}", "create_options": deep}}},
    ):
        refused = problem_of(api.put(f"{PATH}/{name}", json={"name": name, "target": "", **body}))
        assert (refused["code"], "32 deep" in refused["message"]) == ("manifest_invalid", True)


def test_what_a_device_reports_decides(api: Api, server: RunningServer, database: Database) -> None:
    uuid = enroll(api, fresh("press"), line=fresh("line"))
    version = fresh("9.9.")
    deployed(
        api, {"name": fresh("d"), "priority": 99, "target": f"properties.reported.agent_version = '{version}'", "modules": {}}
    )
    report = msgspec.structs.replace(say_status(uuid, "s", 1), agent_version=version)
    with database.write() as connection:
        twins.put_report(connection, report, datetime.now(UTC))
    assert settled(server, database, uuid).edge_deployment is not None
    assert encode(report)
