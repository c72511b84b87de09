"""Lineage and images over the REST API, the SDK and the command line of a real server; tags, ETags, deletion, events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from hedgerow.contracts.api import DeployImage
from registry.store import images, services
from registry.store.database import Database, open_database
from registry.store.tables import activity_blobs
from registry.store.tables import events as event_rows
from tests.registry_lineage import COMMIT, READINGS, World, build_world
from tests.registry_server import Api, RunningServer, problem_of
from tests.registry_stores import NOW, add_image, add_model

LINEAGE, IMAGES = "/api/v1/lineage", "/api/v1/images"


@pytest.fixture(scope="module")
def database(server: RunningServer) -> Iterator[Database]:
    opened = open_database(None, server.workspace)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def world(database: Database) -> World:
    with database.write() as connection:
        return build_world(connection)


def told(database: Database, kind: str) -> list[tuple[str, dict[str, str], str]]:
    with database.read() as connection:
        rows = connection.execute(select(event_rows).where(event_rows.c.kind == kind).order_by(event_rows.c.number)).all()
    return [(row.subject, json.loads(row.details), row.actor) for row in rows]


# --- lineage ------------------------------------------------------------------------------------------------------------


def test_lineage_answers_a_graph(api: Api, world: World) -> None:
    found = api.get(LINEAGE, params={"of": "module:press-1/scorer", "direction": "up"}).json()
    assert found["root"] == "module:press-1/scorer"
    run = next(node for node in found["nodes"] if node["kind"] == "run")
    assert run["facts"]["metrics.auc"] == "0.998"
    assert {"source": f"commit:{COMMIT}", "target": f"run:{world.run.id}"} in found["edges"]


def test_only_gives_the_things_of_a_kind(api: Api, world: World) -> None:
    found = api.get(LINEAGE, params={"of": f"data:{READINGS}", "direction": "down", "only": ["device", "module"]}).json()
    assert {node["kind"] for node in found["nodes"]} == {"data", "device", "module"}
    assert found["edges"] == []


@pytest.mark.parametrize(
    ("asked", "code", "status"),
    [
        ({}, "invalid_argument", 400),
        ({"of": "planet:mars"}, "invalid_lineage_id", 400),
        ({"of": "model:nothing"}, "not_found", 404),
        ({"of": "model:shuttle", "direction": "sideways"}, "invalid_argument", 400),
        ({"of": "model:shuttle", "limit": "0"}, "invalid_argument", 400),
        ({"of": "model:shuttle", "limit": "999999"}, "invalid_argument", 400),
        ({"of": "model:shuttle", "depth": "99"}, "invalid_argument", 400),
        ({"of": "model:shuttle", "only": "planet"}, "invalid_argument", 400),
        ({"of": "model:shuttle", "only": "device", "depth": "2"}, "invalid_argument", 400),
        ({"of": "model:shuttle:99999999999999999999"}, "invalid_reference", 400),
    ],
)
def test_wrong_questions(api: Api, world: World, asked: dict[str, str], code: str, status: int) -> None:
    answered = api.get(LINEAGE, params=asked)
    assert (answered.status_code, problem_of(answered)["code"]) == (status, code)


def test_a_reader_may_ask_a_scoped_token_needs_the_scope(api: Api, server: RunningServer, world: World) -> None:
    asked = {"of": "model:shuttle"}
    for token, status in (
        (api.token("reader"), 200),
        (api.token("reader", scopes=["models:*"]), 403),
        (api.token("reader", scopes=["lineage:*"]), 200),
        (api.token("puller"), 403),
    ):
        with server.client(token) as other:
            assert other.get(LINEAGE, params=asked).status_code == status


# --- images -------------------------------------------------------------------------------------------------------------


def test_images_are_found_by_what_they_are(api: Api, database: Database) -> None:
    with database.write() as connection:
        one, two = add_model(connection, "find-one"), add_model(connection, "find-two")
        first = add_image(connection, "find-a", one, manifest="{a}")
        second = add_image(connection, "find-b", one, two, manifest="{b}")
    tagged = api.patch(f"{IMAGES}/find-b:1", json={"tags": {"team": "blue"}})
    assert tagged.status_code == 200

    def names(**asked: str) -> list[str]:
        answered = api.get(IMAGES, params=asked)
        assert answered.status_code == 200, answered.text
        return [item["name"] for item in answered.json()["items"]]

    assert names(name="find-a") == ["find-a"]
    assert names(name="find-*") == ["find-b", "find-a"]
    assert names(model="find-one") == ["find-b", "find-a"]
    assert names(model="find-two:1") == ["find-b"]
    assert names(model=f"find-two@{two.digest}") == ["find-b"]
    assert names(digest=second.digest) == ["find-b"]
    assert names(tag="team=blue") == ["find-b"]
    assert names(tag="team=red") == []
    assert names(tag="team") == ["find-b"]
    assert names(tag="tea") == []
    assert names(name="find-a", kind="docker") == []
    assert first.digest != second.digest
    for asked in ({"kind": "wheel"}, {"tag": "=blue"}, {"digest": "sha256:1"}, {"colour": "blue"}):
        assert api.get(IMAGES, params=asked).status_code == 400, asked


def test_tags_change_under_an_etag(api: Api, database: Database) -> None:
    with database.write() as connection:
        add_image(connection, "tagged")
    path = f"{IMAGES}/tagged:1"
    before = api.get(path)
    assert before.headers["etag"] == '"1"'
    assert api.get(path, headers={"if-none-match": '"1"'}).status_code == 304
    changed = api.patch(path, json={"tags": {"a": "1", "b": "2"}}, headers={"if-match": '"1"'})
    assert (changed.headers["etag"], changed.json()["revision"]) == ('"2"', 2)
    late = api.patch(path, json={"tags": {"a": "9"}}, headers={"if-match": '"1"'})
    assert (late.status_code, problem_of(late)["code"]) == (412, "precondition_failed")
    assert api.patch(path, json={"tags": {"a": None, "b": "2"}}).json()["tags"] == {"b": "2"}
    assert api.patch(path, json={"tags": {"b": "2"}}).json()["revision"] == 3, "nothing changed"
    assert api.delete(path, headers={"if-match": '"1"'}).status_code == 412
    assert [subject for subject, _, _ in told(database, "image.changed")][-2:] == ["image/tagged:1"] * 2


def test_deleting_is_refused_with_the_users_and_forced_by_owners_only(
    api: Api, server: RunningServer, database: Database
) -> None:
    with database.write() as connection:
        add_image(connection, "used")
        services.deploy(connection, "user", "blue", DeployImage(image="used:1"), NOW)
    path = f"{IMAGES}/used:1"
    refused = api.delete(path)
    assert (refused.status_code, problem_of(refused)["code"]) == (409, "in_use")
    assert "deployment user/blue" in problem_of(refused)["message"]
    with server.client(api.token("contributor")) as other:
        forbidden = other.delete(f"{path}?force=true")
        assert (forbidden.status_code, problem_of(forbidden)["code"]) == (403, "role_forbids")
    assert api.delete(f"{path}?force=true").status_code == 204
    subject, details, actor = told(database, "image.force-deleted")[-1]
    assert (subject, details["users"]) == ("image/used:1", "deployment user/blue")
    assert actor.startswith("owner:")
    gone = api.get(path)
    assert (gone.status_code, problem_of(gone)["code"]) == (404, "record_deleted")
    assert api.get("/v2/used/manifests/1").status_code == 404
    assert api.get("/v2/used/tags/list").status_code == 404
    assert api.get("/api/v1/endpoints/user").json()["deployments"][0]["image"]["name"] == "used"
    again = api.put("/api/v1/endpoints/again/deployments/d", json={"image": "used:1"})
    assert (again.status_code, problem_of(again)["code"]) == (404, "record_deleted")
    module = {"modules": {"m": {"image": "used:1"}}, "name": "late", "target": "*"}
    late = api.put("/api/v1/edge-deployments/late", json=module)
    assert (late.status_code, problem_of(late)["code"]) == (404, "record_deleted")


def test_a_plain_deletion_is_told_too(api: Api, database: Database) -> None:
    with database.write() as connection:
        add_image(connection, "plain")
    assert api.delete(f"{IMAGES}/plain:1").status_code == 204
    assert told(database, "image.deleted")[-1][0] == "image/plain:1"
    assert api.get(f"{IMAGES}/plain:1").status_code == 404


def test_a_queued_build_keeps_its_sources(api: Api, database: Database) -> None:
    entry = api.upload(b"def run(x): return x", "score.py")
    model = api.register("to-build", api.upload(b"weights of to-build"))
    source = [{"path": entry.path, "digest": entry.digest, "size_bytes": entry.size_bytes}]
    wanted = {"name": "built", "kind": "docker", "models": ["to-build"], "script": "score.py", "source": source}
    activity = api.post(IMAGES, json=wanted).json()
    with database.read() as connection:
        held = connection.execute(select(activity_blobs.c.digest).where(activity_blobs.c.activity_id == activity["id"]))
        assert [row.digest for row in held] == [entry.digest]
    assert api.post(f"/api/v1/activities/{activity['id']}/cancel").status_code in (200, 202)
    with database.read() as connection:
        assert connection.execute(select(activity_blobs).where(activity_blobs.c.activity_id == activity["id"])).first() is None
    subject, details, _ = told(database, "image.build-requested")[-1]
    assert (subject, details["models"]) == ("image/built", f"to-build:{model['version']}")


def test_a_scoped_token_builds_only_what_its_scopes_name(api: Api, server: RunningServer) -> None:
    api.register("scoped", api.upload(b"weights of scoped"))
    with server.client(api.token("contributor", scopes=["images:mine-*", "models:scoped"])) as other:
        assert other.post(IMAGES, json={"name": "mine-1", "models": ["scoped"]}).status_code == 202
        assert other.post(IMAGES, json={"name": "theirs", "models": ["scoped"]}).status_code == 403
        assert other.post(IMAGES, json={"name": "mine-2", "models": ["shuttle"]}).status_code == 403


# --- runs ---------------------------------------------------------------------------------------------------------------


def test_a_run_keeps_commit_and_data(api: Api) -> None:
    entry = api.upload(b"print(1)", "train.py")
    snapshot = [{"path": entry.path, "digest": entry.digest, "size_bytes": entry.size_bytes}]
    data = [{"name": "flowers", "digest": READINGS}]
    wanted = {"experiment": "e", "script": "train.py", "snapshot": snapshot, "data": data, "source": {"commit": "abcdef0"}}
    answered = api.post("/api/v1/runs", json=wanted)
    assert answered.status_code == 202, answered.text
    run = api.get(f"/api/v1/runs/{answered.json()['id']}").json()
    assert run["source"]["commit"] == "abcdef0"
    assert run["data"] == [{"name": "flowers", "digest": READINGS, "uri": ""}]
    found = api.get(LINEAGE, params={"of": f"run:{run['id']}", "direction": "up"}).json()
    assert {node["id"] for node in found["nodes"]} >= {"commit:abcdef0", f"data:{READINGS}"}
    refused = api.post("/api/v1/runs", json=wanted | {"data": data * 2})
    assert (refused.status_code, problem_of(refused)["code"]) == (400, "run_refused")


# --- the command line ---------------------------------------------------------------------------------------------------


def hedgerow(server: RunningServer, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from hedgerow.cli.main import main; main()", "-w", str(server.workspace), *arguments],
        cwd=cwd,
        env={"PATH": os.defpath, "HOME": str(cwd), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_draws_a_tree_and_a_list(server: RunningServer, world: World, tmp_path: Path) -> None:
    tree = hedgerow(server, "lineage", "module:press-1/scorer", "--up", cwd=tmp_path)
    assert tree.returncode == 0, tree.stderr
    assert f"        data readings {READINGS}" in tree.stdout
    assert "run " in tree.stdout
    assert "auc=0.998" in tree.stdout
    devices = hedgerow(server, "lineage", f"data:{READINGS}", "--down", "--only", "device", cwd=tmp_path)
    assert [line.split()[:2] for line in devices.stdout.splitlines()] == [["device", "press-1"], ["device", "press-2"]]
    plain = hedgerow(server, "model", "lineage", "shuttle:1", "--json", cwd=tmp_path)
    assert json.loads(plain.stdout)["root"] == "model:shuttle:1"
    wrong = hedgerow(server, "lineage", "planet:mars", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "names nothing that lineage knows" in wrong.stderr
    assert hedgerow(server, "lineage", "model:shuttle", "--only", "device", "--depth", "1", cwd=tmp_path).returncode == 2


def test_submitting_records_data_and_leaves_the_scripts_options_alone(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print(1)")
    (tmp_path / "readings.csv").write_text("1,2")
    done = hedgerow(
        server, "run", "submit", "-e", "cli", "--detach", "--json", "--data", "readings=readings.csv",
        "code/train.py", "--data", "x.csv", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["arguments"] == ["--data", "x.csv", "--json"]
    assert run["data"][0]["name"] == "readings"
    assert run.get("source") is None
    wrong = hedgerow(server, "run", "submit", "-e", "cli", "--data", "readings", "code/train.py", cwd=tmp_path)
    assert wrong.returncode == 2


def test_image_commands(server: RunningServer, database: Database, tmp_path: Path) -> None:
    with database.write() as connection:
        add_image(connection, "shelf", now=datetime.now(UTC))
    assert "team=red" in hedgerow(server, "image", "tag", "shelf:1", "team=red", cwd=tmp_path).stdout
    listed = hedgerow(server, "image", "list", "--tag", "team=red", "--json", cwd=tmp_path)
    assert [item["name"] for item in json.loads(listed.stdout)] == ["shelf"]
    assert hedgerow(server, "image", "tag", "shelf:1", "--remove", "team", cwd=tmp_path).stdout.strip() == "shelf:1  no tags"
    assert hedgerow(server, "image", "delete", "shelf:1", "--force", "--yes", cwd=tmp_path).returncode == 0
    with database.read() as connection:
        assert images.versions_of(connection, "shelf") == []
