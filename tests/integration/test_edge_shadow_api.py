"""Shadows in manifests over the API of a real server: pinned, held, given to devices, refused where no device could run them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from hedgerow.contracts.api_fleet import EdgePlan, EnrolledDevice
from hedgerow.contracts.document import decode
from hedgerow.contracts.edge import EdgeDeployment
from registry.hub.desired import DesiredStates, read_envelope
from registry.hub.notes import Notes
from registry.identity.signing_keys import read_signing_keys
from registry.store import images, twins
from registry.store.database import Database, open_database
from registry.workspace import open_workspace
from tests.registry_server import Api, RunningServer, problem_of
from tests.registry_stores import add_image, add_model

PATH = "/api/v1/edge-deployments"


@pytest.fixture
def database(server: RunningServer) -> Iterator[Database]:
    opened = open_database(None, server.workspace)
    yield opened
    opened.close()


@pytest.fixture
def two(database: Database) -> tuple[str, str]:
    """``name:1`` and ``name:2`` of an onnx image."""
    name = f"churn-{secrets.token_hex(4)}"
    with database.write() as connection:
        model = add_model(connection, f"model-{secrets.token_hex(4)}")
        for version in (1, 2):
            add_image(connection, name, model, manifest=f'{{"{name}": {version}}}')
    return f"{name}:1", f"{name}:2"


def manifest(module: dict[str, Any], target: str = "") -> dict[str, Any]:
    return {"name": f"line-{secrets.token_hex(4)}", "target": target, "modules": {"scorer": module}}


def put(api: Api, body: dict[str, Any], query: str = "") -> Any:
    return api.put(f"{PATH}/{body['name']}{query}", json=body)


def test_the_image_of_a_shadow_is_pinned_held_and_let_go(api: Api, database: Database, two: tuple[str, str]) -> None:
    first, second = two
    newest = second.partition(":")[0]
    body = manifest({"image": first, "shadow": {"image": newest, "fraction": 0.5}})
    stored = decode(put(api, body).content, EdgeDeployment)
    shadow = stored.modules["scorer"].shadow
    assert shadow is not None
    assert (shadow.image, shadow.fraction) == (second, 0.5)
    refused = api.delete(f"/api/v1/images/{second}")
    assert refused.status_code == 409
    assert f"module scorer (shadow) of edge deployment {body['name']}" in problem_of(refused)["message"]
    assert put(api, manifest({"image": first})).status_code == 200
    promoted = {**body, "modules": {"scorer": {"image": first}}}
    assert put(api, promoted).status_code == 200
    assert api.delete(f"/api/v1/images/{second}").status_code == 204


def test_a_device_gets_the_pin_and_may_pull_it(api: Api, server: RunningServer, database: Database, two: tuple[str, str]) -> None:
    first, second = two
    tag = secrets.token_hex(4)
    made = api.post("/api/v1/devices", json={"name": f"press-{tag}", "tags": {"line": tag}})
    uuid = decode(made.content, EnrolledDevice).device.uuid
    body = manifest({"image": first, "shadow": {"image": second}}, f"tags.line = '{tag}'")
    assert put(api, body).status_code == 200
    keys = read_signing_keys(open_workspace(server.workspace).keys)
    DesiredStates(database, keys.signers("desired"), "test", Notes()).settle(datetime.now(UTC), 0.0)
    with database.read() as connection:
        state = read_envelope(twins.desired_envelopes(connection, [uuid])[uuid])
        pin = state.modules["scorer"].shadow_image
        assert pin is not None
        assert pin.version == 2
        name = second.partition(":")[0]
        assert images.find_blob(connection, name, pin.digest, device_uuid=uuid) is not None
    plan = decode(put(api, {**body, "modules": {"scorer": {"image": second}}}, "?dry_run=true&steps=true").content, EdgePlan)
    steps = next(change.steps for change in plan.changes if change.device == f"press-{tag}")
    assert {step.module for step in steps} == {"scorer"}


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ({"command": ["x"]}, "it runs a command"),
        ({"kind": "docker", "image": f"plant.example/app@sha256:{'a' * 64}"}, "it is a container"),
        ({"image": "FIRST", "shadow": {"image": f"plant.example/app@sha256:{'a' * 64}"}}, "one of another registry"),
    ],
)
def test_what_no_device_could_run_is_refused(api: Api, two: tuple[str, str], module: dict[str, Any], words: str) -> None:
    given = {"shadow": {"image": two[1]}, **module}
    if given.get("image") == "FIRST":
        given["image"] = two[0]
    refused = put(api, manifest(given))
    assert refused.status_code == 400
    assert problem_of(refused)["code"] == "shadow_invalid"
    assert words in problem_of(refused)["message"]


def test_an_image_that_is_not_there_and_a_scope_that_does_not_hold(api: Api, server: RunningServer, two: tuple[str, str]) -> None:
    assert put(api, manifest({"image": two[0], "shadow": {"image": "nobody:7"}})).status_code == 404
    body = manifest({"image": two[0], "shadow": {"image": two[1]}})
    other = manifest({"image": two[0], "shadow": {"image": "secret:1"}})
    scopes = ["edge-deployments:*", f"images:{two[0].partition(':')[0]}", "devices:*"]
    with server.client(api.token("contributor", scopes=scopes)) as narrow:
        assert put(narrow, body).status_code == 200
        assert put(narrow, other).status_code == 403
