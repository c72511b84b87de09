"""Blobs, models, environments, images and tokens over the REST API of a real server."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from hedgerow.contracts.document import decode
from hedgerow.contracts.model import FileEntry, ModelManifest
from hedgerow.contracts.work import Activity
from registry.wakeups_socket import SocketReceiver
from tests.registry_server import Api, RunningServer, problem_of
from tests.registry_stores import digest_of_text

OCTETS = {"content-type": "application/octet-stream"}


def test_the_workspace_says_what_it_is(server: RunningServer, api: Api) -> None:
    info = api.get("/api/v1/workspace").json()
    assert info["url"] == server.url
    assert {role["role"]: role["pid"] for role in info["roles"]}["server"] == server.process.pid
    assert len(info["incarnation"]) == 32


def test_blobs_go_in_and_come_out(api: Api) -> None:
    content = os.urandom(5_000_000)
    entry = api.upload(content)
    path = f"/api/v1/blobs/{entry.digest}"
    assert api.get(path).content == content
    head = api.head(path)
    assert head.status_code == 200
    assert head.headers["content-length"] == "5000000"
    assert head.headers["etag"] == f'"{entry.digest}"'
    assert api.head(f"/api/v1/blobs/{digest_of_text('absent')}").status_code == 404
    assert api.put(path, content=content, headers=OCTETS).status_code == 201


def test_a_chunked_upload_of_unknown_length(api: Api) -> None:
    digest = digest_of_text("abc" * 1000)
    answered = api.put(f"/api/v1/blobs/{digest}", content=(b"abc" for _ in range(1000)), headers=OCTETS)
    assert (answered.json()["digest"], answered.json()["size_bytes"]) == (digest, 3000)


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=5-", 206, b"56789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=8-100", 206, b"89"),
        ("bytes=-100", 206, b"0123456789"),
        ("bytes=0-0", 206, b"0"),
        ("bytes=0-1,4-5", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=x", 200, b"0123456789"),
    ],
)
def test_ranges(api: Api, asked: str, status: int, expected: bytes) -> None:
    entry = api.upload(b"0123456789")
    answered = api.get(f"/api/v1/blobs/{entry.digest}", headers={"range": asked})
    assert (answered.status_code, answered.content) == (status, expected)
    if status == 206:
        assert answered.headers["content-range"].endswith("/10")


def test_a_range_outside(api: Api) -> None:
    entry = api.upload(b"0123456789")
    answered = api.get(f"/api/v1/blobs/{entry.digest}", headers={"range": "bytes=10-"})
    assert answered.status_code == 416
    assert answered.headers["content-range"] == "bytes */10"
    assert problem_of(answered)["code"] == "range_refused"


def test_an_upload_that_is_something_else_is_refused(api: Api) -> None:
    digest = digest_of_text("announced")
    answered = api.put(f"/api/v1/blobs/{digest}", content=b"sent", headers=OCTETS)
    assert answered.status_code == 400
    assert problem_of(answered)["code"] == "digest_mismatch"
    assert api.head(f"/api/v1/blobs/{digest}").status_code == 404
    wrong = api.put("/api/v1/blobs/sha256:abc", content=b"sent", headers=OCTETS)
    assert wrong.status_code == 404


def test_a_model_with_its_files(api: Api) -> None:
    weights, readme = api.upload(b"weights", "model.onnx"), api.upload("Größe".encode(), "docs/read me ü.md")
    manifest = api.register("pump-model", weights, readme, tags={"site": "north"}, framework="onnx", description="p")
    assert manifest["version"] == 1
    found = api.get("/api/v1/models/pump-model:1")
    assert decode(found.content, ModelManifest).files == sorted([weights, readme], key=lambda entry: entry.path)
    assert api.get("/api/v1/models/pump-model").json() == manifest
    assert api.get(f"/api/v1/models/pump-model@{manifest['digest']}").json() == manifest
    file = api.get("/api/v1/models/pump-model:1/files/docs/read me ü.md")
    assert file.text == "Größe"
    # Somebody's HTML must never run as one of our pages.
    assert file.headers["content-disposition"].startswith("attachment")
    assert file.headers["content-type"] == "application/octet-stream"
    assert problem_of(api.get("/api/v1/models/pump-model:1/files/docs"))["code"] == "not_found"
    assert api.get("/api/v1/models", params={"tag": "site=north"}).json()["items"] == [manifest]
    assert api.get("/api/v1/models", params={"name": "other-model"}).json()["items"] == []


def test_versions_go_away_but_numbers_do_not_come_back(api: Api) -> None:
    entry = api.upload(b"w")
    assert [api.register("short-lived", entry)["version"] for _ in range(2)] == [1, 2]
    assert api.delete("/api/v1/models/short-lived:2").status_code == 204
    assert problem_of(api.get("/api/v1/models/short-lived:2"))["code"] == "not_found"
    assert api.register("short-lived", entry)["version"] == 3


def test_200_clients_register_one_name(server: RunningServer, api: Api) -> None:
    entry = api.upload(b"shared weights")
    body = {"name": "crowd", "files": [{"path": "m", "digest": entry.digest, "size_bytes": entry.size_bytes}]}
    start = threading.Barrier(40)

    def register(_number: int) -> list[int]:
        with server.client() as mine:
            start.wait(30)
            answers = [mine.post("/api/v1/models", json=body) for _ in range(5)]
        assert {answered.status_code for answered in answers} == {201}
        return [answered.json()["version"] for answered in answers]

    with ThreadPoolExecutor(40) as pool:
        numbers = [number for some in pool.map(register, range(40)) for number in some]
    assert sorted(numbers) == list(range(1, 201))


@pytest.mark.parametrize(
    "name",
    ["", "A", "a/b", "../a", "a..", "-a", "a b", "ä", "a\0b", "a\n", "a" * 129, "a" * 10_000, "名前", "%2e%2e"],
)
def test_names_that_are_none_are_refused(api: Api, name: str) -> None:
    entry = api.upload(b"w")
    body = {"name": name, "files": [{"path": "m", "digest": entry.digest, "size_bytes": 1}]}
    answered = api.post("/api/v1/models", json=body)
    assert answered.status_code == 400
    assert problem_of(answered)["code"] == "invalid_document"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../b", "a//b", ".", "a/.", "a\0b", "a\\b", "a\nb", "x" * 2000])
def test_paths_that_lead_out_are_refused(api: Api, path: str) -> None:
    entry = api.upload(b"w")
    body = {"name": "paths", "files": [{"path": path, "digest": entry.digest, "size_bytes": 1}]}
    assert problem_of(api.post("/api/v1/models", json=body))["code"] == "invalid_document"


def test_files_that_collide_or_are_missing_are_refused(api: Api) -> None:
    entry = api.upload(b"w")
    as_json = {"digest": entry.digest, "size_bytes": 1}
    collide = {"name": "m", "files": [{"path": "a", **as_json}, {"path": "a/b", **as_json}]}
    assert problem_of(api.post("/api/v1/models", json=collide))["code"] == "files_collide"
    missing = {"name": "m", "files": [{"path": "a", "digest": digest_of_text("missing"), "size_bytes": 1}]}
    assert problem_of(api.post("/api/v1/models", json=missing))["code"] == "blob_missing"
    assert api.get("/api/v1/models", params={"name": "m"}).json()["items"] == []


def test_nul_in_a_text_is_refused_wherever_it_stands(api: Api) -> None:
    entry = api.upload(b"w")
    files = [{"path": "a", "digest": entry.digest, "size_bytes": 1}]
    for facts in ({"tags": {"a\0": "b"}}, {"tags": {"a": "b\0"}}, {"description": "\0"}, {"framework": "a\0"}):
        answered = api.post("/api/v1/models", json={"name": "nul", "files": files} | facts)
        assert (answered.status_code, problem_of(answered)["code"]) == (400, "invalid_document")
    fine = api.post("/api/v1/models", json={"name": "nul", "files": files, "description": r"a \u0000 in words"})
    assert fine.status_code == 201


def test_pages_of_a_list(api: Api) -> None:
    entry = api.upload(b"w")
    for _ in range(5):
        api.register("paged", entry)
    versions: list[int] = []
    after: str | None = None
    while True:
        page = api.get("/api/v1/models", params={"name": "paged", "limit": 2, **({"after": after} if after else {})}).json()
        versions += [item["version"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert versions == [5, 4, 3, 2, 1]
    for wrong in ("0", "-1", "1001", "x", "١", "9" * 30):
        assert problem_of(api.get("/api/v1/models", params={"limit": wrong}))["code"] == "invalid_argument"
    assert problem_of(api.get("/api/v1/models", params={"after": "zzz"}))["code"] == "invalid_page"
    assert problem_of(api.get("/api/v1/models", params={"tag": "=nokey"}))["code"] == "invalid_argument"


def test_environments(api: Api) -> None:
    body = {"name": "plain", "requirements": ["numpy==1.26.4"], "python_version": "3.12"}
    first = api.post("/api/v1/environments", json=body)
    assert first.status_code == 201
    assert api.post("/api/v1/environments", json=body).json() == first.json()
    assert api.post("/api/v1/environments", json=body | {"variables": {"A": "1"}}).json()["version"] == 2
    assert api.get("/api/v1/environments/plain:1").json() == first.json()
    assert [item["version"] for item in api.get("/api/v1/environments", params={"name": "plain"}).json()["items"]] == [2, 1]


def test_a_build_is_queued_pinned_and_the_controller_woken(server: RunningServer, api: Api) -> None:
    api.register("built", api.upload(b"w1"))
    api.register("built", api.upload(b"w2"))
    controller = SocketReceiver(server.workspace / "run", "controller")
    try:
        answered = api.post("/api/v1/images", json={"name": "built-image", "models": ["built"]})
        assert answered.status_code == 202
        assert controller.wait(10), "the controller was not woken"
    finally:
        controller.close()
    activity = decode(answered.content, Activity)
    assert (activity.kind, activity.subject, activity.state) == ("image.build", "built-image", "queued")
    assert api.get(f"/api/v1/activities/{activity.id}").json() == answered.json()
    assert activity.id in {item["id"] for item in api.get("/api/v1/activities").json()["items"]}
    # The version that was newest when the build was asked for cannot be confused with a later one.
    assert problem_of(api.get("/api/v1/images/built-image"))["code"] == "not_found"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"models": ["absent"]}, "not_found"),
        ({"models": ["ready:7"]}, "not_found"),
        ({"models": ["ready:x"]}, "invalid_reference"),
        ({"models": []}, "invalid_document"),
        ({"models": ["ready", "ready:1"]}, "build_refused"),
        ({"environment": "absent"}, "not_found"),
        ({"script": "score.py"}, "build_refused"),
        # Before a model is converted or a base fetched.
        ({"platforms": ["linux/riscv64"]}, "unsupported_platform"),
        ({"kind": "docker", "platforms": ["linux/arm64", "linux/aarch64"]}, "platform_repeated"),
        ({"kind": "docker", "bases": {"windows/amd64": "docker:x"}}, "unsupported_platform"),
        ({"source": [{"path": "score.py", "digest": digest_of_text("absent"), "size_bytes": 1}]}, "blob_missing"),
        ({"kind": "toaster"}, "invalid_document"),
        ({"unknown": 1}, "invalid_document"),
    ],
)
def test_mistakes_in_a_build_are_refused_at_once(api: Api, change: dict[str, object], code: str) -> None:
    if not api.get("/api/v1/models", params={"name": "ready"}).json()["items"]:
        api.register("ready", api.upload(b"w"))
    before = len(api.get("/api/v1/activities").json()["items"])
    answered = api.post("/api/v1/images", json={"name": "i", "models": ["ready"]} | change)
    assert problem_of(answered)["code"] == code
    assert len(api.get("/api/v1/activities").json()["items"]) == before


def test_tokens_are_made_listed_and_revoked(server: RunningServer, api: Api) -> None:
    secret = api.token("reader")
    token_id = secret.split("_")[1]
    with server.client(secret) as reader:
        assert reader.get("/api/v1/models").status_code == 200
        listed = {item["id"]: item for item in api.get("/api/v1/tokens").json()["items"]}
        assert listed[token_id]["last_used_at"] is not None
        assert listed[token_id]["secret"] is None
        assert api.delete(f"/api/v1/tokens/{token_id}").status_code == 204
        refused = reader.get("/api/v1/models")
        assert (refused.status_code, problem_of(refused)["code"]) == (401, "token_refused")
    for role in ("device", "run", "emperor"):
        assert api.post("/api/v1/tokens", json={"name": "x", "role": role}).status_code == 400
    for seconds in (0, -1, 10**18):
        body = {"name": "x", "role": "reader", "expires_in_s": seconds}
        assert problem_of(api.post("/api/v1/tokens", json=body))["code"] == "invalid_document"


def test_the_unix_socket_serves_the_same(server: RunningServer) -> None:
    transport = httpx.HTTPTransport(uds=str(server.workspace / "run" / "server.sock"))
    headers = {"authorization": f"Bearer {server.owner_token}"}
    with httpx.Client(transport=transport, base_url="http://localhost", headers=headers) as local:
        assert local.get("/api/v1/workspace").json()["url"] == server.url
        assert local.get("/metrics").status_code == 200
    assert (server.workspace / "run" / "server.sock").stat().st_mode & 0o777 == 0o600


def test_metrics(api: Api, server: RunningServer) -> None:
    api.register("counted", FileEntry(path="m", digest=api.upload(b"w").digest, size_bytes=1))
    with server.client("") as nobody:
        text = nobody.get("/metrics").text
    assert "hedgerow_models " in text
    assert 'hedgerow_activities{state="queued"}' in text
    assert 'hedgerow_http_requests_total{method="POST",route="/api/v1/models",status="201"}' in text
