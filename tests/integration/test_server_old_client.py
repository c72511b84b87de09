"""Clients of another age: what the SDK of 0.1.0 sent is still understood, and other API versions are answered in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.registry_app import Asker, running_app

WEIGHTS, SCRIPT = b"weights", b"print(1)\n"
W, S = (f"sha256:{sha256(content).hexdigest()}" for content in (WEIGHTS, SCRIPT))
BLOBS = "/api/v1/blobs"

# Recorded from `hedgerow.sdk` 0.1.0 as it registered, built, enrolled, ran and cleaned up: method, address, body, status.
# RUN, ACTIVITY and TOKEN stand for what the server answered before.
TRANSCRIPT: list[tuple[str, str, str | bytes | None, int]] = [
    ("GET", "/api/v1/workspace", None, 200),
    ("HEAD", f"{BLOBS}/{W}", None, 404),
    ("PUT", f"{BLOBS}/{W}", WEIGHTS, 201),
    ("HEAD", f"{BLOBS}/{W}", None, 200),
    (
        "POST",
        "/api/v1/models",
        f'{{"name":"churn","files":[{{"path":"m.onnx","digest":"{W}","size_bytes":7}}],"framework":"onnx",'
        '"framework_version":null,"description":"","tags":{"owner":"ann"},"properties":{},"inputs":[],"outputs":[],"run_id":null}',
        201,
    ),
    ("GET", "/api/v1/models?limit=50", None, 200),
    ("GET", "/api/v1/models?name=churn&limit=50", None, 200),
    ("GET", "/api/v1/models?tag=owner%3Dann&limit=50", None, 200),
    ("GET", "/api/v1/models/churn", None, 200),
    ("GET", "/api/v1/models/churn:1", None, 200),
    ("GET", "/api/v1/models/churn:1/files/m.onnx", None, 200),
    (
        "POST",
        "/api/v1/environments",
        '{"name":"env","python_version":"3.11","requirements":["numpy==2.0.0"],"variables":{}}',
        201,
    ),
    ("GET", "/api/v1/environments?limit=50", None, 200),
    ("GET", "/api/v1/environments/env:1", None, 200),
    (
        "POST",
        "/api/v1/images",
        '{"name":"img","kind":"onnx","models":["churn:1"],"script":null,"source":[],"environment":null,'
        '"platforms":["linux/amd64"],"base":null,"verify":true,"tags":{}}',
        202,
    ),
    ("GET", "/api/v1/images?limit=50", None, 200),
    ("GET", "/api/v1/endpoints?limit=50", None, 200),
    ("POST", "/api/v1/devices", '{"name":"press-1","tags":{"a":"b"}}', 201),
    ("GET", "/api/v1/devices/press-1", None, 200),
    ("GET", "/api/v1/devices?limit=50", None, 200),
    ("GET", "/api/v1/edge-deployments?limit=50", None, 200),
    ("PUT", f"{BLOBS}/{S}", SCRIPT, 201),
    (
        "POST",
        "/api/v1/runs",
        f'{{"experiment":"exp","script":"train.py","arguments":["--x"],"snapshot":[{{"path":"train.py","digest":"{S}",'
        '"size_bytes":9}],"variables":{"A":"b"}}',
        202,
    ),
    ("GET", "/api/v1/runs?experiment=exp&limit=50", None, 200),
    ("GET", "/api/v1/runs/RUN", None, 200),
    ("GET", "/api/v1/runs/RUN/metrics", None, 200),
    ("POST", "/api/v1/runs/RUN/log", '{"metrics":[],"parameters":{"rate":"0.1"}}', 200),
    ("GET", "/api/v1/activities?limit=50", None, 200),
    ("GET", "/api/v1/activities/ACTIVITY", None, 200),
    ("POST", "/api/v1/activities/ACTIVITY/cancel", None, 200),
    ("GET", "/api/v1/telemetry?limit=50", None, 200),
    ("GET", "/api/v1/telemetry/gaps?limit=50", None, 200),
    ("POST", "/api/v1/tokens", '{"name":"ci","role":"reader","expires_in_s":3600}', 201),
    ("GET", "/api/v1/tokens", None, 200),
    ("DELETE", "/api/v1/tokens/TOKEN", None, 204),
    ("DELETE", "/api/v1/devices/press-1", None, 204),
    ("DELETE", "/api/v1/models/churn:1", None, 409),
]


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    with running_app(tmp_path_factory.mktemp("old")) as running:
        yield running.asker()


def test_what_the_last_release_sent_still_works(tmp_path: Path) -> None:
    with running_app(tmp_path) as running:
        owner, known = running.asker(), dict[str, str]()
        for method, address, body, status in TRANSCRIPT:
            for word, value in known.items():
                address = address.replace(word, value)
            answered = owner.ask(method, address, json.loads(body) if isinstance(body, str) else body)
            assert answered.status_code == status, f"{method} {address}: {answered.status_code} {answered.text}"
            if (method, address) == ("POST", "/api/v1/runs") and answered.json:
                known = {"RUN": answered.json["id"], "ACTIVITY": answered.json["activity_id"]}
            if (method, address) == ("POST", "/api/v1/tokens") and answered.json:
                known["TOKEN"] = answered.json["id"]


@pytest.mark.parametrize("path", ["/api/v0/models", "/api/v2/models", "/api/v1beta1/models", "/api/v2", "/api/v10/x/y"])
def test_another_api_version_is_answered_in_words(owner: Asker, path: str) -> None:
    for method in ("GET", "POST", "HEAD"):
        answered = owner.ask(method, path)
        assert answered.status_code == 404
    problem = (owner.ask("GET", path).json or {})["error"]
    assert problem["code"] == "unknown_api_version"
    assert path.split("/")[2] in problem["message"]
    assert "v1" in problem["message"]


def test_an_argument_that_does_not_exist_is_not_ignored(owner: Asker) -> None:
    answered = owner.ask("GET", "/api/v1/models?nmae=churn")
    assert (answered.status_code, (answered.json or {})["error"]["code"]) == (400, "unknown_argument")
    assert "name" in (answered.json or {})["error"]["remedy"]
