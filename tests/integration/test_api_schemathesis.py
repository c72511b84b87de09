"""schemathesis against a real server: thousands of requests made from the OpenAPI document, good ones and broken ones.

It runs as a process of its own, on a workspace of its own in which most lists hold something, so that addresses are hit and
not only missed. The seed is fixed: the same requests each time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from registry.store.database import open_database
from tests.registry_server import Api, RunningServer, running_server
from tests.registry_stores import add_image, add_model

SEED = 20260131
# A stream that lasts as long as its activity, and a copy of everything: neither is an answer to look at a thousand times. And
# schemathesis learns ids from answers: sooner or later it revokes its own token, and gets nothing but 401 from then on.
# A call of a device's method waits for that device. Who enrols needs an enrolment key instead of a token.
LEFT_OUT = ("follow_activity", "get_backup", "revoke_token", "invoke_method", "enroll_with_key")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "unsupported_method",
)
# What stands in addresses, by noun: the variable, and records that are there.
Known = dict[str, dict[str, list[str]]]


@pytest.mark.timeout(420)
def test_requests_of_every_kind_get_answers_that_the_document_promises(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        ask(server, None, tmp_path, most_examples=5)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_more_requests_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    with running_server(tmp_path, "--database", postgres_url) as server:
        ask(server, postgres_url, tmp_path, most_examples=60)


def ask(server: RunningServer, database_url: str | None, folder: Path, *, most_examples: int) -> None:
    """Let schemathesis loose on ``server``; whatever it finds is in the failure."""
    with server.client() as api:
        known = furnish(server, database_url, api)
        config = folder / "schemathesis.toml"
        config.write_text(configuration(known, server.owner_token))
        done = run(config, f"{server.url}/openapi.json", folder, most_examples)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4000:]
        assert api.get("/api/v1/workspace").status_code == 200, "the owner's token is no longer good: most answers were 401"


def run(config: Path, document: str, folder: Path, most_examples: int) -> subprocess.CompletedProcess[str]:
    left_out = [word for name in LEFT_OUT for word in ("--exclude-operation-id", name)]
    return subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", document),
            *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS), "--max-examples", str(most_examples)),
            *("--seed", str(SEED), "--generation-database", "none", "--warnings", "off", "--continue-on-failure"),
            *left_out,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )


def configuration(known: Known, token: str) -> str:
    """schemathesis.toml: who asks, and which records there are."""
    lines = [f"headers = {{ Authorization = {json.dumps(f'Bearer {token}')} }}", "color = false", "request-timeout = 20"]
    # One method that an address may have elsewhere and one that nothing has; the others are test_api_errors.py's.
    lines += ['phases.coverage.unexpected-methods = ["PATCH", "TRACE"]']
    for noun, variables in known.items():
        for name, values in variables.items():
            lines += [f"[dictionaries.{noun}-{name}]", f"values = {json.dumps(values)}"]
    for noun, variables in known.items():
        bound = ", ".join(f'"path.{name}" = {{ dictionary = "{noun}-{name}", probability = 0.6 }}' for name in variables)
        lines += ["[[operations]]", f'include-tag = "{noun}"', f"parameters = {{ {bound} }}"]
    return "\n".join(lines) + "\n"


def furnish(server: RunningServer, database_url: str | None, api: Api) -> Known:
    """A few records of every kind."""
    with closing(open_database(database_url, server.workspace)) as database, database.write() as connection:
        add_image(connection, "iris-onnx", add_model(connection, "seeded"))
    weights = api.upload(b"weights" * 100, "model.onnx")
    for _ in range(4):
        api.register("iris", weights, tags={"site": "north"})
    script = api.upload(b"print(1)", "train.py")
    snapshot = [{"path": script.path, "digest": script.digest, "size_bytes": script.size_bytes}]
    submitted = {"experiment": "churn", "script": "train.py", "snapshot": snapshot}
    runs = [_made(api, "POST", "/api/v1/runs", submitted) for _ in range(3)]
    for number in range(4):
        _made(api, "POST", "/api/v1/devices", {"name": f"press-{number}", "tags": {"site": "north"}})
        edge = {"name": f"line-{number}", "target": "tags.site = 'north'", "modules": {"m": {"command": ["true"]}}}
        _made(api, "PUT", f"/api/v1/edge-deployments/line-{number}", edge)
        _made(api, "PUT", f"/api/v1/endpoints/iris-{number}/deployments/blue", {"image": "iris-onnx"})
    environments = [{"name": "iris-env", "requirements": [f"numpy==1.26.{number}"]} for number in range(3)]
    for environment in environments:
        _made(api, "POST", "/api/v1/environments", environment)
    tokens = [_made(api, "POST", "/api/v1/tokens", {"name": "ci", "role": "reader"}) for _ in range(3)]
    for name in ("smtp", "chat"):
        _made(api, "PUT", f"/api/v1/secrets/{name}", {"value": "correct-horse"})
    activities = [item["id"] for item in api.get("/api/v1/activities").json()["items"]]
    numbered = {stem: [f"{stem}-{number}" for number in range(4)] for stem in ("press", "line", "iris")}
    return {
        "activities": {"activity_id": activities},
        "blobs": {"digest": [weights.digest, script.digest]},
        "devices": {"name": numbered["press"]},
        "edge-deployments": {"name": numbered["line"]},
        "endpoints": {"endpoint": numbered["iris"], "deployment": ["blue"]},
        "environments": {"reference": ["iris-env", "iris-env:1", "iris-env:2"]},
        "images": {"reference": ["iris-onnx", "iris-onnx:1"]},
        "models": {
            "reference": ["iris", "iris:1", "iris:2", "iris:3"],
            "name": ["iris"],
            "alias": ["champion"],
            "path": ["model.onnx"],
        },
        "runs": {"run_id": [run["id"] for run in runs]},
        "secrets": {"name": ["smtp", "chat"]},
        "tokens": {"token_id": [token["id"] for token in tokens]},
    }


def _made(api: Api, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answered = api.request(method, path, json=body)
    assert answered.status_code in (200, 201, 202), answered.text
    return dict(answered.json())
