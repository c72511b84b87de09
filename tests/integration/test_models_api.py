"""Models over the REST API of a real server: everything that can be said at a registration, changed later, found again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.registry_server import Api, RunningServer, problem_of
from tests.registry_stores import digest_of_text

MODELS = "/api/v1/models"


@pytest.fixture(scope="module")
def contributor(server: RunningServer) -> Iterator[Api]:
    with server.client() as owner:
        secret = owner.token("contributor")
    with server.client(secret) as client:
        yield client


def as_file(content: bytes, path: str = "model.onnx") -> dict[str, Any]:
    return {"path": path, "digest": digest_of_text(content.decode()), "size_bytes": len(content)}


def small(name: str, content: bytes = b"weights", **facts: Any) -> dict[str, Any]:
    """A registration with its content inside."""
    file = as_file(content)
    return {"name": name, "files": [file], "inline": {file["digest"]: base64.b64encode(content).decode()}} | facts


def registered(api: Api, name: str, **facts: Any) -> dict[str, Any]:
    answered = api.post(MODELS, json=small(name, **facts))
    assert answered.status_code == 201, answered.text
    return dict(answered.json())


def told(api: Api, subject: str) -> list[str]:
    """Kinds of the events about a subject, in order."""
    return [event["kind"] for event in api.get("/api/v1/events", params={"subject": subject}).json()["items"]]


def test_everything_that_can_be_said_comes_back(api: Api) -> None:
    content, sample = b"the weights", b"[1.0, 2.0]"
    facts = {
        "framework": "onnx",
        "framework_version": "1.17",
        "description": "Pump model",
        "tags": {"stage": "test"},
        "properties": {"rows": "1000"},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 9]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
        "source": {"commit": "a" * 40, "repository": "https://example.org/r.git", "branch": "main", "dirty": True},
        "data": [{"name": "shuttle", "digest": digest_of_text("rows"), "uri": "file:///data"}],
    }
    wanted = small("told", content, sample_input=as_file(sample, "sample.json"), aliases=["champion"], **facts)
    wanted["inline"][digest_of_text(sample.decode())] = base64.b64encode(sample).decode()
    answered = api.post(MODELS, json=wanted)
    assert answered.status_code == 201, answered.text
    manifest = answered.json()
    assert {field: manifest[field] for field in facts} == facts
    assert (manifest["version"], manifest["revision"], manifest["aliases"]) == (1, 1, ["champion"])
    shown = api.get(f"{MODELS}/told@champion")
    assert shown.json() == manifest == api.get(f"{MODELS}/told@latest").json()
    assert shown.headers["etag"] == answered.headers["etag"] == '"1"'
    assert api.get(f"{MODELS}/told", headers={"if-none-match": '"1"'}).status_code == 304
    assert api.get(f"{MODELS}/told:1/files/model.onnx").content == content
    assert api.get(f"{MODELS}/told:1/sample-input").content == sample
    assert api.get(MODELS, params={"data": digest_of_text("rows")}).json()["items"] == [manifest]
    assert told(api, "model/told:1") == ["model.registered"]


def test_what_is_inline_must_be_what_it_says(api: Api) -> None:
    lie = small("liar")
    lie["inline"] = {next(iter(lie["inline"])): base64.b64encode(b"something else").decode()}
    assert problem_of(api.post(MODELS, json=lie))["code"] == "digest_mismatch"
    stranger = small("liar")
    stranger["inline"][digest_of_text("x")] = base64.b64encode(b"x").decode()
    assert problem_of(api.post(MODELS, json=stranger))["code"] == "registration_refused"
    size = small("liar", b"weights of another size")
    size["files"][0]["size_bytes"] = 3
    assert problem_of(api.post(MODELS, json=size))["code"] == "blob_size_wrong"
    broken = small("liar")
    broken["inline"] = {next(iter(broken["inline"])): "!!!"}
    assert problem_of(api.post(MODELS, json=broken))["code"] == "invalid_document"
    large = api.post(MODELS, json=small("liar", b"x" * (1024 * 1024 + 1)))
    assert (large.status_code, problem_of(large)["code"]) == (413, "document_too_large")
    assert api.post(MODELS, json=small("fits", b"x" * 1024 * 1024)).status_code == 201
    assert api.get(MODELS, params={"name": "liar"}).json()["items"] == []


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"run_id": "no-such-run"}, "not_found"),
        ({"sample_input": as_file(b"never sent", "s.json")}, "blob_missing"),
        ({"data": [{"name": "d", "digest": digest_of_text(n)} for n in "ab"]}, "registration_refused"),
        ({"aliases": ["latest"]}, "alias_reserved"),
        ({"aliases": ["Upper"]}, "invalid_document"),
        ({"tags": {"": "x"}}, "invalid_document"),
        ({"tags": {"k" * 251: "x"}}, "invalid_document"),
        ({"tags": {"k": "x" * 8001}}, "invalid_document"),
        ({"tags": {"k": 1}}, "invalid_document"),
        ({"tags": {str(n): "" for n in range(501)}}, "too_many_labels"),
        ({"properties": {str(n): "" for n in range(501)}}, "too_many_labels"),
        ({"description": "x" * 10_001}, "invalid_document"),
        ({"framework": "x" * 101}, "invalid_document"),
        ({"source": {"commit": "HEAD"}}, "invalid_document"),
        ({"data": [{"name": "d", "digest": "sha256:x"}]}, "invalid_document"),
        ({"unheard": 1}, "invalid_document"),
    ],
)
def test_what_cannot_be_registered_leaves_nothing(api: Api, facts: dict[str, Any], code: str) -> None:
    answered = api.post(MODELS, json=small("refused") | facts)
    assert problem_of(answered)["code"] == code
    assert 400 <= answered.status_code < 500
    assert api.get(MODELS, params={"name": "refused"}).json()["items"] == []


def test_the_largest_labels_are_kept_and_found(api: Api) -> None:
    registered(api, "larger-labels", tags={"ü" * 250: "ü" * 8000})
    assert api.get(f"{MODELS}/larger-labels").json()["tags"] == {"ü" * 250: "ü" * 8000}
    key, value = "k" * 250, "x" * 7000  # an address holds no more
    registered(api, "large-labels", tags={key: value})
    found = api.get(MODELS, params={"tag": f"{key}={value}"}).json()["items"]
    assert [one["tags"] for one in found] == [{key: value}]
    assert api.get(MODELS, params={"tag": f"{key}={value[:-1]}"}).json()["items"] == []


def test_an_mlflow_folder_says_what_it_is_and_the_request_wins(api: Api) -> None:
    mlmodel = (
        b"flavors:\n  sklearn:\n    sklearn_version: 1.5.0\n    pickled_model: model.pkl\nmlflow_version: 2.20.0\nrun_id: r1\n"
    )
    body = small("from-mlflow")
    body["files"].append(as_file(mlmodel, "MLmodel"))
    body["inline"][digest_of_text(mlmodel.decode())] = base64.b64encode(mlmodel).decode()
    manifest = api.post(MODELS, json=body).json()
    assert (manifest["framework"], manifest["framework_version"]) == ("sklearn", "1.5.0")
    assert manifest["mlflow"]["mlflow_version"] == "2.20.0"
    manifest = api.post(MODELS, json=body | {"framework": "mine"}).json()
    assert (manifest["framework"], manifest["framework_version"]) == ("mine", None)
    broken = b"flavors: ["
    body["files"][1] = as_file(broken, "MLmodel")
    body["inline"] = {digest_of_text(text.decode()): base64.b64encode(text).decode() for text in (b"weights", broken)}
    assert problem_of(api.post(MODELS, json=body))["code"] == "mlmodel_invalid"


# --- the list -----------------------------------------------------------------------------------------------------------


def named(api: Api, **params: Any) -> list[str]:
    answered = api.get(MODELS, params=params)
    assert answered.status_code == 200, answered.text
    return [f"{one['name']}:{one['version']}" for one in answered.json()["items"]]


def test_filters_of_the_list(api: Api) -> None:
    first = registered(api, "filter-a", tags={"zone": "n", "x": "1"}, framework="f1", properties={"zp": "1"}, description="alpha")
    registered(api, "filter-b", tags={"zone": "n"}, description="alphabet soup")
    last = registered(api, "filter-a", tags={"zone": "s"}, aliases=["zed"])
    assert named(api, tag="zone=n") == ["filter-b:1", "filter-a:1"]
    assert named(api, tag=["zone=n", "x"]) == ["filter-a:1"]
    assert named(api, tag="zone", newest="true") == ["filter-a:2", "filter-b:1"]
    assert named(api, property="zp=1") == ["filter-a:1"] == named(api, framework="f1")
    assert named(api, q="alpha") == ["filter-a:1"]
    assert named(api, q="alpha*") == ["filter-b:1", "filter-a:1"]
    assert named(api, alias="zed") == ["filter-a:2"]
    assert named(api, name="filter-*", until=last["created_at"]) == ["filter-b:1", "filter-a:1"]
    assert named(api, name="filter-a", since=last["created_at"]) == ["filter-a:2"]
    assert named(api, name="filter-a", digest=first["digest"]) == ["filter-a:2", "filter-a:1"]
    assert named(api, tag="zone=") == []


@pytest.mark.parametrize(
    "params",
    [
        {"tag": "=x"}, {"property": ""}, {"q": "!?"}, {"q": "a " * 30}, {"tag": [f"k{n}" for n in range(21)]},
        {"since": "yesterday"},
        {"until": "2026-01-01T00:00:00"}, {"newest": "yes"}, {"digest": "abc"}, {"data": "sha256:"}, {"name": ["a", "b"]},
        {"tags": "a=b"},
    ],
)  # fmt: skip
def test_arguments_that_mean_nothing_are_refused(api: Api, params: dict[str, Any]) -> None:
    answered = api.get(MODELS, params=params)
    assert answered.status_code == 400
    assert problem_of(answered)["code"] in ("invalid_argument", "unknown_argument", "repeated_argument")


# --- changes ------------------------------------------------------------------------------------------------------------


def test_tags_change_and_are_found_by_what_they_are_now(api: Api) -> None:
    registered(api, "changing", tags={"stage": "test", "gone": "1"}, properties={"rows": "5"}, description="before")
    wanted = {"tags": {"stage": "prod", "gone": None}, "properties": {"cols": "9", "rows": "5"}, "description": "afterwards"}
    answered = api.patch(f"{MODELS}/changing", json=wanted, headers={"if-match": '"1"'})
    assert answered.status_code == 200, answered.text
    changed = answered.json()
    assert (changed["tags"], changed["properties"]) == ({"stage": "prod"}, {"rows": "5", "cols": "9"})
    assert (changed["revision"], answered.headers["etag"]) == (2, '"2"')
    assert api.get(f"{MODELS}/changing:1").json() == changed
    assert named(api, name="changing", tag="stage=prod", q="afterwards", property="cols") == ["changing:1"]
    for stale in ({"tag": "stage=test"}, {"tag": "gone"}, {"q": "before"}):
        assert named(api, name="changing", **stale) == []
    # The same again changes nothing and tells nothing.
    assert api.patch(f"{MODELS}/changing", json=wanted).json() == changed
    assert told(api, "model/changing:1") == ["model.registered", "model.changed"]
    late = api.patch(f"{MODELS}/changing", json={"tags": {"a": "b"}}, headers={"if-match": '"1"'})
    assert (late.status_code, problem_of(late)["code"]) == (412, "precondition_failed")
    fixed = api.patch(f"{MODELS}/changing", json={"properties": {"rows": "6"}, "tags": {"a": "b"}})
    assert (fixed.status_code, problem_of(fixed)["code"]) == (409, "property_fixed")
    assert "rows" in problem_of(fixed)["message"]
    assert api.get(f"{MODELS}/changing:1").json() == changed
    many = api.patch(f"{MODELS}/changing", json={"tags": {str(n): "" for n in range(500)}})
    assert problem_of(many)["code"] == "too_many_labels"
    assert problem_of(api.patch(f"{MODELS}/nobody", json={}))["code"] == "not_found"


# --- aliases ------------------------------------------------------------------------------------------------------------


def test_an_alias_moves_and_is_followed(api: Api) -> None:
    for _ in range(2):
        registered(api, "aliased")
    path = f"{MODELS}/aliased/aliases/champion"
    made = api.put(path, json={"version": 1})
    assert (made.status_code, made.json()["version"], made.json()["protected"]) == (200, 1, False)
    assert api.get(f"{MODELS}/aliased:1").json()["aliases"] == ["champion"]
    assert api.get(f"{MODELS}/aliased:1").headers["etag"] == '"2"', "what is read differs, so its ETag must"
    assert api.put(path, json={"version": 2}, headers={"if-match": '"7"'}).status_code == 412
    moved = api.put(path, json={"version": 2}, headers={"if-match": made.headers["etag"]})
    assert moved.json()["revision"] == 2
    assert api.get(f"{MODELS}/aliased@champion").json()["version"] == 2
    assert api.get(f"{MODELS}/aliased:1").json()["aliases"] == []
    assert [one["aliases"] for one in api.get(MODELS, params={"name": "aliased"}).json()["items"]] == [["champion"], []]
    assert api.put(path, json={"version": 2}).json() == moved.json()
    assert api.get(f"{MODELS}/aliased/aliases").json()["items"] == [moved.json()] == [api.get(path).json()]
    refused = api.delete(f"{MODELS}/aliased:2")
    assert (refused.status_code, problem_of(refused)["code"]) == (409, "in_use")
    assert "alias aliased@champion" in problem_of(refused)["message"]
    assert api.delete(path).status_code == 204
    assert problem_of(api.get(f"{MODELS}/aliased@champion"))["code"] == "not_found"
    assert api.delete(f"{MODELS}/aliased:2").status_code == 204
    assert told(api, "model/aliased@champion") == ["model.alias-set", "model.alias-set", "model.alias-removed"]


def test_a_protected_alias_is_the_owners(api: Api, contributor: Api) -> None:
    for _ in range(2):
        registered(contributor, "guarded")
    path = f"{MODELS}/guarded/aliases/champion"
    assert contributor.put(path, json={"version": 1, "protected": True}).json()["protected"] is True
    attempts = [
        contributor.put(path, json={"version": 2}),
        contributor.put(path, json={"version": 1, "protected": False}),
        contributor.delete(path),
        contributor.post(MODELS, json=small("guarded", aliases=["champion"])),
    ]
    assert [(one.status_code, problem_of(one)["code"]) for one in attempts] == [(403, "alias_protected")] * 4
    assert contributor.put(path, json={"version": 1}).status_code == 200, "nothing to change"
    assert api.get(f"{MODELS}/guarded").json()["version"] == 2, "the refused registration left no version"
    assert api.put(path, json={"version": 2}).json() | {"updated_at": ""} == {
        "name": "guarded",
        "alias": "champion",
        "version": 2,
        "protected": True,
        "revision": 2,
        "updated_at": "",
        "updated_by": "this-machine",
    }
    assert api.post(MODELS, json=small("guarded", aliases=["champion"])).json()["aliases"] == ["champion"]
    assert api.delete(path).status_code == 204


@pytest.mark.parametrize(
    ("alias", "body", "code"),
    [
        ("latest", {"version": 1}, "alias_reserved"),
        ("2", {"version": 1}, "alias_reserved"),
        ("champion", {"version": 9}, "not_found"),
        ("champion", {"version": 0}, "invalid_document"),
        ("Champion", {"version": 1}, "invalid_name"),
        ("a" * 129, {"version": 1}, "invalid_name"),
    ],
)
def test_aliases_that_cannot_be(api: Api, alias: str, body: dict[str, Any], code: str) -> None:
    if not named(api, name="plain"):
        registered(api, "plain")
    assert problem_of(api.put(f"{MODELS}/plain/aliases/{alias}", json=body))["code"] == code
    assert problem_of(api.put(f"{MODELS}/nobody/aliases/{alias}", json=body))["code"] in (code, "not_found")
    assert problem_of(api.get(f"{MODELS}/nobody/aliases"))["code"] == "not_found"
    assert problem_of(api.delete(f"{MODELS}/plain/aliases/absent"))["code"] == "not_found"
    assert problem_of(api.delete(f"{MODELS}/plain/aliases/latest"))["code"] == "alias_reserved"


def test_many_aliases_have_pages(api: Api) -> None:
    registered(api, "many-names", aliases=[f"a{n}" for n in range(5)])
    first = api.get(f"{MODELS}/many-names/aliases", params={"limit": 3}).json()
    rest = api.get(f"{MODELS}/many-names/aliases", params={"limit": 3, "after": first["next"]}).json()
    assert [one["alias"] for one in first["items"] + rest["items"]] == [f"a{n}" for n in range(5)]
    assert rest["next"] is None


# --- deletion -----------------------------------------------------------------------------------------------------------


def test_a_build_that_waits_keeps_its_model(api: Api) -> None:
    registered(api, "wanted")
    registered(api, "wanted.too")  # its name differs by what LIKE takes for any character
    activity = api.post("/api/v1/images", json={"name": "wanted-image", "models": ["wanted"]}).json()
    refused = api.delete(f"{MODELS}/wanted:1")
    assert f"the build of image wanted-image (activity {activity['id']})" in problem_of(refused)["message"]
    assert api.delete(f"{MODELS}/wanted.too:1").status_code == 204


def test_only_an_owner_forces_and_what_is_gone_says_so(api: Api, contributor: Api) -> None:
    registered(api, "doomed", tags={"doom": "1"}, aliases=["champion"])
    refused = contributor.delete(f"{MODELS}/doomed:1", params={"force": "true"})
    assert (refused.status_code, problem_of(refused)["code"]) == (403, "role_forbids")
    assert api.delete(f"{MODELS}/doomed:1", headers={"if-match": '"9"'}).status_code == 412
    assert api.delete(f"{MODELS}/doomed:1", params={"force": "true"}).status_code == 204
    gone = [
        api.get(f"{MODELS}/doomed:1"),
        api.get(f"{MODELS}/doomed:1/files/model.onnx"),
        api.patch(f"{MODELS}/doomed:1", json={}),
    ]
    gone += [api.delete(f"{MODELS}/doomed:1"), api.put(f"{MODELS}/doomed/aliases/a", json={"version": 1})]
    assert [(one.status_code, problem_of(one)["code"]) for one in gone] == [(404, "record_deleted")] * 5
    assert "doomed:1 was deleted by this-machine at 20" in problem_of(gone[0])["message"]
    for reference in ("doomed", "doomed@champion", "doomed@latest"):
        assert problem_of(api.get(f"{MODELS}/{reference}"))["code"] == "not_found"
    assert named(api, name="doomed") == named(api, tag="doom") == named(api, q="doomed") == []
    assert told(api, "model/doomed:1") == ["model.registered", "model.force-deleted"]
    assert registered(api, "doomed")["version"] == 2
    assert problem_of(api.post("/api/v1/images", json={"name": "i", "models": ["doomed:1"]}))["code"] == "record_deleted"


def test_force_without_users_is_a_plain_deletion(api: Api) -> None:
    registered(api, "unused")
    assert api.delete(f"{MODELS}/unused", params={"force": "true"}).status_code == 204
    assert problem_of(api.get(f"{MODELS}/unused:1"))["code"] == "not_found"
    assert told(api, "model/unused:1") == ["model.registered", "model.deleted"]


def test_a_repeated_registration_is_done_once(api: Api) -> None:
    body = json.dumps(small("once")).encode()
    headers = {"idempotency-key": "model-once", "content-type": "application/json"}
    answers = [api.post(MODELS, content=body, headers=headers) for _ in range(2)]
    assert [one.status_code for one in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    assert named(api, name="once") == ["once:1"]


NO_REFERENCES = ["a:0", "a:x", "a@", "a@B", "A", "a:1:2", "a" * 5000, "名前", "a%00", "..%2Fa", "a@sha256:1"]


@pytest.mark.parametrize("reference", NO_REFERENCES)
def test_references_that_are_none(api: Api, reference: str) -> None:
    answered = api.get(f"{MODELS}/{reference}")
    assert problem_of(answered)["code"] in ("invalid_reference", "invalid_name", "no_such_path", "malformed_request")
    assert answered.status_code in (400, 404)
