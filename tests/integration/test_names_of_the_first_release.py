"""Names that 0.1.0 took and OCI refuses: what has one is listed, shown, used and deleted; nothing new gets one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hedgerow.contracts.api import Page, TokenInfo
from hedgerow.contracts.api_fleet import Device, DeviceTwin, StoredTelemetry
from hedgerow.contracts.device import DeviceConfig, from_toml, to_toml
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.environment import Environment
from hedgerow.contracts.image import ImageRecord, ScoringConfig, ServedModel
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.service import Endpoint
from hedgerow.contracts.telemetry import TelemetryBatch
from hedgerow.contracts.work import Run
from hedgerow.errors import InvalidDocument
from registry.store import environments, garbage, schema
from registry.store.database import open_database
from registry.store.tables import activity_blobs, image_versions
from registry.workspace import open_workspace
from tests import first_release as old
from tests.registry_server import Api, problem_of, running_server
from tests.registry_stores import BACKENDS

API = "/api/v1"
DOCUMENTS = Path(__file__).parent.parent / "contract" / "documents" / "v1"


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else None


@pytest.fixture
def owner(database_url: str | None, tmp_path: Path) -> Iterator[Api]:
    old.make_workspace(tmp_path / "workspace", database_url)
    options = [] if database_url is None else ["--database", database_url]
    with running_server(tmp_path, *options) as server, server.client() as api:
        yield api


def shown(owner: Api, path: str) -> Any:
    answered = owner.get(f"{API}/{path}")
    assert answered.status_code == 200, f"{path}: {answered.status_code} {answered.text}"
    return answered.json()


def lists(owner: Api) -> list[str]:
    """The addresses of the API that need nothing to be named, from its own document."""
    found = []
    for path, operations in owner.get("/openapi.json").json()["paths"].items():
        asked = operations.get("get", {}).get("parameters", [])
        if "get" in operations and "{" not in path and not any(argument.get("required") for argument in asked):
            found.append(path)
    return found


def test_every_list_and_page_answers(owner: Api) -> None:
    addresses = set(lists(owner)) - {f"{API}/backup", f"{API}/lineage"}
    assert len(addresses) >= 14, sorted(addresses)
    addresses |= {
        f"{API}/images?name={old.IMAGE}&model={old.MODEL}",
        f"{API}/models?name={old.MODEL}",
        f"{API}/models?q=line",
    }
    addresses |= {f"{API}/devices?name=press..*", f"{API}/devices?edge_deployment={old.EDGE}", f"{API}/runs?experiment=shift___*"}
    addresses |= {f"{API}/telemetry?device={old.DEVICE}&module={old.MODULE}", f"{API}/endpoints?after={old.ENDPOINT}"}
    addresses |= {"/", "/models", "/images", "/services", "/devices", "/runs", "/activities", "/v2/_catalog"}
    addresses |= {f"/models/{old.MODEL}:1", f"/images/{old.IMAGE}:1", f"/devices/{old.DEVICE}", f"/services/{old.ENDPOINT}"}
    answers = {address: owner.get(address) for address in sorted(addresses)}
    assert [f"{address}: {got.text[:400]}" for address, got in answers.items() if got.status_code != 200] == []


def test_clients_read_the_lists(owner: Api) -> None:
    """The SDK checks what it gets with the same types."""
    kinds: tuple[tuple[str, type, str, str], ...] = (
        ("models", ModelManifest, "name", old.MODEL),
        ("environments", Environment, "name", old.ENVIRONMENT),
        ("images", ImageRecord, "name", old.IMAGE),
        ("endpoints", Endpoint, "name", old.ENDPOINT),
        ("devices", Device, "name", old.DEVICE),
        ("edge-deployments", EdgeDeployment, "name", old.EDGE),
        ("runs", Run, "experiment", old.EXPERIMENT),
        ("telemetry", StoredTelemetry, "stream", old.STREAM),
    )
    for path, kind, field, name in kinds:
        page: Page[Any] = decode(owner.get(f"{API}/{path}").content, Page[kind])  # type: ignore[valid-type]  # a type of the table
        assert [getattr(one, field) for one in page.items][-1:] == [name], path
    names = [decode(json.dumps(token), TokenInfo).name for token in shown(owner, "tokens")["items"]]
    assert old.TOKEN in names


def test_each_is_shown_by_its_name(owner: Api) -> None:
    assert shown(owner, f"models/{old.MODEL}")["files"][0]["path"] == "model.onnx"
    assert shown(owner, f"environments/{old.ENVIRONMENT}:1")["requirements"] == ["numpy"]
    assert shown(owner, f"images/{old.IMAGE}@{old.LAYOUT}")["version"] == 3
    assert shown(owner, f"endpoints/{old.ENDPOINT}")["deployments"][0]["name"] == old.DEPLOYMENT
    twin = decode(owner.get(f"{API}/devices/{old.DEVICE}/twin").content, DeviceTwin)
    assert twin.desired is not None
    assert list(twin.desired.modules) == [old.MODULE]
    assert shown(owner, f"edge-deployments/{old.EDGE}")["modules"][old.MODULE]["image"] == f"{old.IMAGE}:1"
    walked = shown(owner, f"lineage?of=module:{old.DEVICE}/{old.MODULE}")
    assert {"model", "image", "environment", "device"} <= {node["kind"] for node in walked["nodes"]}
    # A device's own client speaks OCI without minding the grammar, as in 0.1.0.
    assert owner.get(f"/v2/{old.IMAGE}/tags/list").json()["tags"] == ["1", "2", "3"]


def test_each_is_deployed_changed_and_deleted(owner: Api) -> None:
    place = f"{API}/endpoints/{old.ENDPOINT}/deployments/{old.DEPLOYMENT}"
    assert owner.put(place, json={"image": f"{old.IMAGE}:2"}).status_code == 202
    manifest = shown(owner, f"edge-deployments/{old.EDGE}")
    changed = manifest | {"modules": manifest["modules"] | {"relay": {"command": ["/bin/relay"]}}, "target": "*"}
    for dry_run in ("true", "false"):
        answered = owner.put(f"{API}/edge-deployments/{old.EDGE}?dry_run={dry_run}", json=changed)
        assert answered.status_code == 200, answered.text
    assert owner.put(f"{API}/models/{old.MODEL}/aliases/champion", json={"version": 1}).status_code in (200, 201)
    assert owner.patch(f"{API}/devices/{old.DEVICE}", json={"tags": {"site": "north"}}).status_code == 200

    assert problem_of(owner.delete(f"{API}/models/{old.MODEL}:1"))["code"] == "in_use"
    assert problem_of(owner.delete(f"{API}/environments/{old.ENVIRONMENT}:1"))["code"] == "in_use"
    for path in (
        *(f"edge-deployments/{old.EDGE}", f"devices/{old.DEVICE}", f"images/{old.IMAGE}:1", f"images/{old.IMAGE}:3"),
        *(f"models/{old.MODEL}/aliases/champion", "activities/build-4/cancel"),
    ):
        answered = owner.post(f"{API}/{path}") if path.endswith("cancel") else owner.delete(f"{API}/{path}")
        assert answered.status_code in (200, 202, 204), f"{path}: {answered.text}"
    assert owner.delete(f"{API}/environments/{old.ENVIRONMENT}:1").status_code == 204
    assert [one["version"] for one in shown(owner, "images")["items"]] == [2]


def test_nothing_new_gets_such_a_name(owner: Api) -> None:
    file = {"path": "model.onnx", "digest": old.WEIGHTS, "size_bytes": 7}
    module = {"command": ["/bin/relay"]}
    manifest = shown(owner, f"edge-deployments/{old.EDGE}")
    asked: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("POST", "models", {"name": old.MODEL, "files": [file]}),
        ("POST", "environments", {"name": "new..one", "requirements": []}),
        ("POST", "images", {"name": "new..one", "models": [f"{old.MODEL}:1"]}),
        ("POST", "devices", {"name": "new..one"}),
        ("POST", "tokens", {"name": "new..one", "role": "reader"}),
        ("PUT", "endpoints/new..one/deployments/blue", {"image": f"{old.IMAGE}:1"}),
        ("PUT", f"endpoints/{old.ENDPOINT}/deployments/new..one", {"image": f"{old.IMAGE}:1"}),
        ("PUT", "edge-deployments/new..one", {"name": "new..one", "target": "*", "modules": {}}),
        ("PUT", "edge-deployments/north", {"name": "north", "target": "*", "modules": {"new..one": module}}),
        ("PUT", f"edge-deployments/{old.EDGE}", manifest | {"modules": {"new..one": module}}),
        ("PUT", f"edge-deployments/{old.EDGE}?dry_run=true", manifest | {"modules": {"new..one": module}}),
        ("PUT", f"models/{old.MODEL}/aliases/new..one", {"version": 1}),
        ("PUT", "secrets/new..one", {"value": "x"}),
    )
    for method, path, body in asked:
        answered = owner.request(method, f"{API}/{path}", json=body)
        assert answered.status_code == 400, f"{method} {path}: {answered.status_code} {answered.text}"
        assert problem_of(answered)["code"] in ("invalid_name", "invalid_document"), answered.text
    assert shown(owner, "endpoints")["items"][0]["revision"] == 1


def test_images_know_the_environment_that_they_were_built_in(owner: Api) -> None:
    """From the request of their build; version 3 was built in one that is gone, which nothing can point at."""
    records = [shown(owner, f"images/{old.IMAGE}:{version}") for version in (1, 2, 3)]
    assert [record.get("environment") for record in records] == [f"{old.ENVIRONMENT}:1", None, None]
    assert records[0]["verification"]["reason"] == "Prüfung"
    assert records[0]["verification"]["max_abs_error"] == 2.4e-07
    walked = shown(owner, f"lineage?of=environment:{old.ENVIRONMENT}:1")
    found = {node["id"] for node in walked["nodes"] if node["kind"] == "image"}
    assert found == {f"image:{old.IMAGE}:1"}


def test_records_gain_the_environment_and_nothing_else(database_url: str | None, tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "workspace")
    old.make_workspace(workspace.folder, database_url)
    database = open_database(database_url, workspace.folder)
    try:
        schema.upgrade(database, workspace)
        with database.read() as connection:
            rows = connection.execute(image_versions.select().order_by(image_versions.c.version)).all()
        wanted = [old.image_record(1) | {"environment": f"{old.ENVIRONMENT}:1"}, old.image_record(2), old.image_record(3)]
        assert [json.loads(row.record) for row in rows] == wanted
    finally:
        database.close()


def test_a_build_that_the_first_release_queued_holds_what_it_needs(database_url: str | None, tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "workspace")
    old.make_workspace(workspace.folder, database_url)
    database = open_database(database_url, workspace.folder)
    try:
        schema.upgrade(database, workspace)
        with database.write() as connection:
            garbage.hold_for_work(connection)
            held = connection.execute(activity_blobs.select()).all()
            assert [(row.activity_id, row.digest) for row in held] == [("build-4", old.SCRIPT)]
            waiting = f"the build of image {old.QUEUED} (activity build-4)"
            assert environments.users_of(connection, old.ENVIRONMENT, 1) == [f"image {old.IMAGE}:1", waiting]
    finally:
        database.close()


def test_what_lies_outside_the_workspace_is_read() -> None:
    """Images, devices and what they send keep their names: nobody can rename there."""
    served = ServedModel(name=old.MODEL, version=1, digest=old.WEIGHTS, path="models/line..7/1")
    config = encode(ScoringConfig(models=[served]))
    assert decode(config, ScoringConfig).models == [served]
    with pytest.raises(InvalidDocument, match="a name"):
        decode(config.replace(b'"line..7"', b'"../7"'), ScoringConfig)
    device = decode((DOCUMENTS / "DeviceConfig.json").read_bytes(), DeviceConfig)
    assert from_toml(to_toml(msgspec.structs.replace(device, name=old.DEVICE))).name == old.DEVICE
    batch = decode((DOCUMENTS / "TelemetryBatch.json").read_bytes(), TelemetryBatch)
    messages = [msgspec.structs.replace(message, module=old.MODULE) for message in batch.messages]
    sent = msgspec.structs.replace(batch, stream=old.STREAM, messages=messages)
    assert decode(encode(sent), TelemetryBatch) == sent
    assert messages
