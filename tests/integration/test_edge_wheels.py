"""A deployment's release of the agent on the control plane's side: composed from layers, planned, and its wheel held."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hedgerow.contracts.edge import AgentRelease, EdgeDeployment
from hedgerow.contracts.edge_manifest import read_manifest
from hedgerow.errors import InvalidDocument
from registry.blobs.errors import BlobMissing
from registry.hub.compose import Composition, candidates, compose, next_state
from registry.store import blobs, edge_deployments, garbage
from registry.store.database import Database
from scripts.inventory import TOP
from tests.agent_releases import wheel
from tests.fixtures.parts import search_path
from tests.registry_app import Asker, running_app
from tests.registry_server import RunningServer
from tests.registry_stores import BACKENDS, NOW, after, ready_database

OLD, NEW = ("sha256:" + letter * 64 for letter in "ab")
LATER = after(10 * 24 * 3600)


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as made:
        with made.write() as connection:
            for digest in (OLD, NEW):
                blobs.record(connection, digest, 7, NOW)
        yield made


def deployment(wheel: str | None, **fields: Any) -> EdgeDeployment:
    release = AgentRelease(version="2.0", wheel=wheel) if wheel else None
    return EdgeDeployment(**{"name": "line", "target": "*", "modules": {}, "agent": release} | fields)


def put(database: Database, manifest: EdgeDeployment) -> None:
    with database.write() as connection:
        edge_deployments.put(connection, manifest, NOW)


def lost(database: Database) -> set[str]:
    """What a collection would take, long after every lease."""
    with database.read() as connection:
        return {found.digest for found in garbage.find(connection, LATER, "", 100)}


def test_a_wheel_stays_as_long_as_a_revision_may_be_wanted(database: Database) -> None:
    assert lost(database) == {OLD, NEW}
    put(database, deployment(OLD))
    assert lost(database) == {NEW}
    put(database, deployment(OLD))
    put(database, deployment(NEW))
    assert lost(database) == set(), "the revision before may come back"
    put(database, deployment(NEW, labels={"a": "b"}))
    assert lost(database) == {OLD}
    put(database, deployment(None))
    put(database, deployment(None, labels={"a": "b"}))
    assert lost(database) == {OLD, NEW}
    put(database, deployment(NEW))
    with database.write() as connection:
        edge_deployments.remove(connection, "line")
    assert lost(database) == {OLD, NEW}


def test_a_wheel_that_is_not_there_is_not_named(database: Database) -> None:
    with pytest.raises(BlobMissing):
        put(database, deployment("sha256:" + "c" * 64))


def test_the_uppermost_layer_that_says_one_counts() -> None:
    base = deployment(OLD, priority=1, created_at=NOW)
    silent = deployment(None, name="silent", layered=True, priority=3, created_at=NOW)
    upper = deployment(NEW, name="upper", layered=True, priority=2, created_at=NOW)
    found = compose("press", {}, candidates([base, silent, upper]), {})
    assert isinstance(found, Composition)
    assert found.agent == upper.agent
    state = next_state("uuid", None, found, incarnation="i", now=NOW)
    assert state is not None
    assert state.agent == upper.agent
    again = compose("press", {}, candidates([base, silent]), {})
    assert isinstance(again, Composition)
    changed = next_state("uuid", state, again, incarnation="i", now=NOW)
    assert changed is not None
    assert changed.agent == base.agent
    assert next_state("uuid", changed, again, incarnation="i", now=NOW) is None


def test_a_manifest_says_it_in_two_lines() -> None:
    document = {"target": "*", "modules": {}, "agent": {"version": "2.0", "wheel": OLD}}
    assert read_manifest(document, "line")[0].agent == AgentRelease(version="2.0", wheel=OLD)
    for wrong in ({"version": "2.0", "weel": OLD}, {"version": "../2"}, {"wheel": OLD}, {"version": "2.0", "wheel": "x"}):
        with pytest.raises(InvalidDocument):
            read_manifest({**document, "agent": wrong}, "line")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Asker]:
    with running_app(tmp_path / "workspace") as app:
        yield app.asker("owner")


def test_the_plan_shows_it_and_a_wheel_that_is_not_there_is_refused(api: Asker) -> None:
    api.done("POST", "/api/v1/devices", {"name": "press"})
    wheel = api.upload(b"a wheel")["digest"]
    body = {"name": "line", "target": "*", "modules": {}, "agent": {"version": "2.0", "wheel": wheel}}
    plan = api.done("PUT", "/api/v1/edge-deployments/line?dry_run=true&steps=true", body)
    (change,) = plan["changes"]
    assert change["agent"] is True
    assert [(step["action"], step["text"][:9]) for step in change["steps"]] == [("upgrade", "agent 2.0")]
    assert api.done("PUT", "/api/v1/edge-deployments/line", body)["agent"] == body["agent"]
    missing = {**body, "agent": {"version": "2.0", "wheel": OLD}}
    assert api.code("PUT", "/api/v1/edge-deployments/line?dry_run=true", missing) == "manifest_invalid"
    assert api.code("PUT", "/api/v1/edge-deployments/line", missing) == "manifest_invalid"


def test_only_the_device_itself_is_let_in(api: Asker) -> None:
    api.done("POST", "/api/v1/devices", {"name": "press"})
    assert api.code("GET", f"/api/v1/devices/press/agent-wheel?digest={OLD}") == "role_forbids"


def test_the_command_prints_the_lines_of_a_manifest(server: RunningServer, tmp_path: Path) -> None:
    path = wheel(tmp_path, "", version="0.3.0")
    digest = f"sha256:{sha256(path.read_bytes()).hexdigest()}"
    program = "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"
    argv = [sys.executable, "-c", program, "edge", "agent-release", "upload", str(path)]
    env = {"PATH": search_path(), "HOME": str(tmp_path), "PYTHONPATH": str(TOP), "HEDGEROW_WORKSPACE": str(server.workspace)}
    shown = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    said, _, lines = shown.partition("\n\n")
    assert said.startswith("Uploaded release 0.3.0")
    assert tomllib.loads(lines) == {"agent": {"version": "0.3.0", "wheel": digest}}
    again = subprocess.run([*argv, "--json"], env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    assert json.loads(again) == {"version": "0.3.0", "wheel": digest}
    path.write_bytes(b"damaged")
    refused = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert "no wheel of the agent" in refused.stderr
