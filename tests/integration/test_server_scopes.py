"""What a token with scopes can do: walked over every route of the server, with nothing taken on trust."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.routing import Rule

from hedgerow.contracts.api import Role
from registry.server.operation import operation_of
from registry.server.scopes import NOUNS, OPEN
from tests.registry_app import Asker, RunningApp, running_app

API = "/api/v1"
SOME_DIGEST = "sha256:" + "0" * 64
# Neither needs a token, or shows more than what a token is: nothing of the workspace. (/enroll takes no token at all.)
OPEN_TO_ALL = {"/healthz", "/login", "/metrics", "/static/<path:filename>", "/openapi.json", "/api", "/api/<noun>", "/v2/token"}
OPEN_TO_ALL |= {f"{API}/enroll"}
# Public by nature: brokers fetch them, and they say nothing but serial numbers.
OPEN_TO_ALL |= {"/authority.pem", "/authority.crl", "/authority.crl.pem"}
# By design: whoever may make models, runs or images stores their files first (docs/access.md).
FOR_UPLOADS = {("PUT", f"{API}/blobs/<digest>"), ("POST", f"{API}/blobs/missing"), ("POST", f"{API}/blobs/batch")}
# Records named "mine" of every noun.
MINE = [f"{noun}:mine" for noun in NOUNS]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with running_app(tmp_path_factory.mktemp("scopes")) as app:
        yield app


@pytest.fixture(scope="module")
def owner(running: RunningApp) -> Asker:
    return running.asker()


def routes(running: RunningApp) -> list[tuple[str, Rule]]:
    found = [rule for rule in running.app.url_map.iter_rules() if rule.rule not in OPEN_TO_ALL]
    return [(method, rule) for rule in found for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})]


def path_of(rule: Rule, name: str) -> str:
    values = {
        argument: 1 if argument == "number" else SOME_DIGEST if argument == "digest" else name for argument in rule.arguments
    }
    built = rule.build(values, append_unknown=False)
    assert built is not None, rule.rule
    return built[1]


def scope_of(running: RunningApp, rule: Rule) -> str | None:
    described = operation_of(running.app, rule.endpoint)
    return None if described is None else described.scope


@pytest.mark.parametrize("role", ["contributor", "reader", "puller"])
def test_nothing_is_reached_outside_of_the_scopes(running: RunningApp, role: Role) -> None:
    limited = running.asker(role, MINE)
    makes = []
    for method, rule in routes(running):
        if scope_of(running, rule) == OPEN or rule.rule == "/v2/" or (method, rule.rule) in FOR_UPLOADS:
            continue
        answered = limited.ask(method, path_of(rule, "theirs"), None if method == "GET" else {})
        if method == "POST" and not rule.arguments and answered.status_code == 400:
            makes.append(rule.rule)
            continue
        assert answered.status_code == 403, f"{method} {rule.rule}: {answered.status_code} {answered.text[:300]}"
    # These look at the name inside of the request: see the test of makers.
    assert set(makes) <= set(makers(SOME_DIGEST)), makes


@pytest.mark.parametrize("query", ["", "?name=", "?name=theirs", "?name=*", "?name=m*", "?name=mine&name=theirs", "?name=mine*"])
def test_lists_are_closed_but_for_what_the_filter_narrows(running: RunningApp, query: str) -> None:
    limited = running.asker("reader", MINE)
    for noun in ("models", "images", "environments", "endpoints", "devices", "edge-deployments", "runs", "secrets"):
        assert limited.ask("GET", f"{API}/{noun}{query}").status_code == 403, noun


def makers(digest: str, name: str = "theirs") -> dict[str, dict[str, Any]]:
    """A valid body for each route that makes something named inside of the body."""
    file = {"path": "model.onnx", "digest": digest, "size_bytes": 7}
    return {
        f"{API}/models": {"name": name, "files": [file]},
        f"{API}/environments": {"name": name, "requirements": ["numpy==2.0.0"]},
        f"{API}/images": {"name": name, "models": ["mine"]},
        f"{API}/devices": {"name": name},
        f"{API}/enrollment-keys": {"name": "line", "device": name},
        f"{API}/unsigned-desired-states/signatures": {
            "workspace_id": "w",
            "states": [{"device": name, "device_uuid": "u", "envelope": ""}],
        },
        f"{API}/runs": {"experiment": name, "script": "model.onnx", "snapshot": [file]},
    }


def test_what_is_made_must_be_named_by_a_scope(running: RunningApp, owner: Asker) -> None:
    digest = owner.upload(b"weights")["digest"]
    limited, other = running.asker("contributor", MINE), running.asker("contributor", ["models:theirs"])
    limited.done("POST", f"{API}/models", makers(digest, "mine")[f"{API}/models"])
    for path, body in makers(digest).items():
        assert limited.code("POST", path, body) == "scope_forbids", path
        if path != f"{API}/models":
            assert other.code("POST", path, body) == "scope_forbids", path
        mine = limited.ask("POST", path, makers(digest, "mine")[path])
        assert mine.status_code < 300, f"{path}: {mine.text}"
    for noun in ("environments", "images", "devices"):
        assert owner.ask("GET", f"{API}/{noun}?name=theirs").json == {"items": [], "next": None}
    # Every POST without a record in its address stands in the table, or no token with scopes may have its role.
    posts = {
        rule.rule
        for method, rule in routes(running)
        if method == "POST" and not rule.arguments and (method, rule.rule) not in FOR_UPLOADS
    }
    for path in posts - set(makers(digest)):
        assert limited.code("POST", path, {}) == "role_forbids", path


def test_what_is_built_upon_must_be_named_too(running: RunningApp, owner: Asker) -> None:
    file = owner.upload(b"weights")
    for name in ("mine", "secret-model"):
        owner.done("POST", f"{API}/models", {"name": name, "files": [file]})
    owner.done("POST", f"{API}/environments", {"name": "secret-env", "requirements": ["numpy==2.0.0"]})
    limited = running.asker("contributor", MINE)
    for more in (
        {"models": ["secret-model:1"]},
        {"models": ["mine", "secret-model"]},
        {"models": ["mine"], "environment": "secret-env", "script": "s.py", "source": [file | {"path": "s.py"}]},
    ):
        assert limited.code("POST", f"{API}/images", {"name": "mine"} | more) == "scope_forbids", more
    image = {"image": "secret-image:1"}
    assert limited.code("PUT", f"{API}/endpoints/mine/deployments/blue", image) == "scope_forbids"
    manifest = {"name": "mine", "target": "*", "modules": {"m": {"image": "secret-image:1"}}}
    assert limited.ask("PUT", f"{API}/edge-deployments/mine", manifest).status_code in (400, 403)


def test_what_a_scope_names_is_reached(running: RunningApp, owner: Asker) -> None:
    limited = running.asker("contributor", ["models:team-a.*"])
    model = {"name": "team-a.iris", "files": [limited.upload(b"team a's")]}
    made = limited.done("POST", f"{API}/models", model)
    assert limited.ask("GET", f"{API}/models/team-a.iris/files/model.onnx").data == b"team a's"
    for reference in ("team-a.iris", "team-a.iris:1", f"team-a.iris@{made['digest']}"):
        assert limited.done("GET", f"{API}/models/{reference}")["version"] == made["version"]
    for query in ("?name=team-a.iris", "?name=team-a.*"):
        assert [one["name"] for one in limited.done("GET", f"{API}/models{query}")["items"]] == ["team-a.iris"]
    for query in ("", "?name=team-*", "?name=team-b.x", "?name="):
        assert limited.code("GET", f"{API}/models{query}") == "scope_forbids"
    assert limited.code("GET", f"{API}/models?name=team-a.iris&nosuch=1") == "unknown_argument"
    limited.ask("DELETE", f"{API}/models/team-a.iris:1")
    assert owner.code("GET", f"{API}/models/team-a.iris:1") == "not_found"
    everything = running.asker("reader", ["models:*"])
    assert everything.ask("GET", f"{API}/models").status_code == 200
    assert everything.code("GET", f"{API}/images") == "scope_forbids"


def test_files_are_read_through_their_records_only(running: RunningApp, owner: Asker) -> None:
    digest = owner.upload(b"somebody else's")["digest"]
    uploader, other = running.asker("contributor", ["models:mine"]), running.asker("contributor", ["secrets:mine"])
    for path in (f"{API}/blobs/{digest}", f"{API}/blobs/{digest}/chunks"):
        assert uploader.code("GET", path) == "scope_forbids"
    assert uploader.done("POST", f"{API}/blobs/missing", {"digests": [SOME_DIGEST]}) == {"missing": [SOME_DIGEST]}
    assert other.code("POST", f"{API}/blobs/missing", {"digests": [SOME_DIGEST]}) == "scope_forbids"
    assert other.code("PUT", f"{API}/blobs/{digest}", b"somebody else's") == "scope_forbids"


def test_runs_and_activities_belong_to_what_they_are_about(running: RunningApp, owner: Asker) -> None:
    file = owner.upload(b"print()", "train.py")
    submitted = {"experiment": "churn", "script": "train.py", "snapshot": [file]}
    run = owner.done("POST", f"{API}/runs", submitted)
    mine, other = running.asker("contributor", ["runs:churn"]), running.asker("contributor", ["runs:other"])
    paths = (f"{API}/runs/{run['id']}", f"{API}/runs/{run['id']}/metrics", f"{API}/activities/{run['activity_id']}")
    for path in paths:
        mine.done("GET", path)
        assert other.code("GET", path) == "scope_forbids"
    assert other.code("POST", f"{API}/runs/{run['id']}/log", {"parameters": {"a": "b"}}) == "scope_forbids"
    assert other.code("POST", f"{API}/activities/{run['activity_id']}/cancel") == "scope_forbids"
    assert mine.done("POST", f"{API}/activities/{run['activity_id']}/cancel")["state"] == "cancelled"
    assert mine.done("GET", f"{API}/runs?experiment=churn")["items"]
    assert mine.code("GET", f"{API}/runs") == "scope_forbids"
    # What does not exist is not told apart from what may not be seen.
    assert mine.code("GET", f"{API}/runs/nosuch") == mine.code("GET", f"{API}/activities/nosuch") == "scope_forbids"


def test_a_page_session_reaches_no_more_than_its_token(running: RunningApp) -> None:
    limited = running.asker("reader", ["models:mine"])
    client = running.app.test_client()
    client.get(f"/login?token={limited.token}")
    for path in ("/", "/models", "/models/theirs", f"{API}/models", f"{API}/models/theirs"):
        assert client.get(path).status_code == 403, path


def test_oci_tools_reach_what_the_scopes_name(running: RunningApp) -> None:
    puller = running.asker("puller", ["images:mine"])
    assert puller.ask("GET", "/v2/").status_code == 200
    assert puller.ask("GET", "/v2/mine/tags/list").status_code == 404
    for path in ("/v2/theirs/tags/list", "/v2/theirs/manifests/latest", f"/v2/theirs/blobs/{SOME_DIGEST}"):
        answered = puller.ask("GET", path)
        assert (answered.status_code, answered.json["errors"][0]["code"]) == (403, "DENIED")  # type: ignore[index]  # OCI's shape


def test_every_route_names_a_noun_that_scopes_can_have(running: RunningApp) -> None:
    """Except for what only owners do, whose tokens have no scopes."""
    for _, rule in routes(running):
        described = operation_of(running.app, rule.endpoint)
        if rule.rule.startswith("/api/"):
            assert described is not None, f"{rule.rule} says nothing of itself"
            assert described.scope in {*NOUNS, OPEN, "blobs"} or described.roles == ("owner",), rule.rule
