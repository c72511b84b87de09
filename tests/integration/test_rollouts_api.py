"""Rollouts over the API and the command line of a real server; the hub's part is done here, in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.hub.desired import DesiredStates
from registry.hub.notes import Notes
from registry.hub.rollouts.rollouts import Rollouts
from registry.store.database import Database, open_database
from tests.integration.test_cli_edge import run_offline
from tests.registry_server import Api, RunningServer, problem_of

PATH = "/api/v1/edge-deployments"
POLICY = {"groups": [{"devices": 1}, {"name": "half", "percent": 50}], "on_error": "reverse"}


@pytest.fixture
def database(server: RunningServer) -> Iterator[Database]:
    opened = open_database(None, server.workspace)
    yield opened
    opened.close()


@pytest.fixture
def go(database: Database) -> Callable[[], None]:
    """What the hub does when it is woken."""
    desired = DesiredStates(database, {"k": Ed25519PrivateKey.generate().sign}, "test", Notes())
    rollouts = Rollouts(database, "test")

    def looks() -> None:
        rollouts.hurry()
        rollouts.tend(datetime.now(UTC), 0.0)
        desired.settle(datetime.now(UTC), 0.0)

    return looks


def refused(answered: httpx.Response) -> tuple[int, str]:
    return answered.status_code, problem_of(answered)["code"]


def enroll(api: Api, *names: str, **tags: str) -> None:
    for name in names:
        assert api.post("/api/v1/devices", json={"name": name, "tags": tags}).status_code == 201


def body(name: str, command: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "target": f"tags.of = '{name}'", "modules": {"m": {"command": [command]}}, **more}


def test_a_rollout_is_seen_and_steered(server: RunningServer, go: Callable[[], None]) -> None:
    with server.client() as api:
        enroll(api, "s1", "s2", "s3", "s4", of="seen")
        address = f"{PATH}/seen"
        assert api.put(address, json=body("seen", "old")).status_code == 200
        assert refused(api.get(f"{address}/rollout")) == (404, "no_rollout")
        assert api.get(f"{address}/rollouts").json() == {"items": [], "next": None}
        assert api.put(address, json=body("seen", "new", rollout=POLICY)).json()["revision"] == 2
        assert api.get(f"{address}/rollout").json()["groups"] == []
        go()
        found = api.get(f"{address}/rollout").json()
        assert [(one["name"], one["state"], one["devices"]) for one in found["groups"]] == [
            ("group 1", "running", 1),
            ("half", "waiting", 1),
            ("rest", "waiting", 2),
        ]
        told = api.get(f"{address}/rollout/devices", params={"state": "released"}).json()["items"]
        assert [one["group"] for one in told] == [0]
        page = api.get(f"{address}/rollout/devices", params={"limit": 3}).json()
        assert ([one["device"] for one in page["items"]], page["next"]) == (["s1", "s2", "s3"], "s3")
        paused = api.post(f"{address}/rollout", json={"action": "pause", "reason": "lunch"}).json()
        assert (paused["state"], paused["reason"].startswith("paused by ")) == ("paused", True)
        assert refused(api.post(f"{address}/rollout", json={"action": "pause"})) == (409, "rollout_over")
        reversing = api.post(f"{address}/rollout", json={"action": "reverse"}).json()
        assert (reversing["state"], api.get(address).json()["revision"]) == ("reversing", 3)
        assert api.get(address).json()["modules"]["m"]["command"] == ["old"]
        events = api.get("/api/v1/events", params={"kind": "edge-rollout.*", "subject": "edge-rollout/seen"}).json()["items"]
        assert [one["kind"].partition(".")[2] for one in events] == ["started", "group-released", "paused", "reversing"]


def test_who_may_not_and_what_is_not_there(server: RunningServer) -> None:
    with server.client() as api:
        reader, narrow = api.token("reader"), api.token("contributor", scopes=["edge-deployments:mine"])
        assert api.put(f"{PATH}/mine", json=body("mine", "x", rollout=POLICY)).status_code == 200
        assert refused(api.get(f"{PATH}/absent/rollout")) == (404, "not_found")
        assert api.get(f"{PATH}/absent/rollouts").status_code == 404
        assert api.post(f"{PATH}/mine/rollout", json={"action": "explode"}).status_code == 400
    for token in (reader, narrow):
        with server.client(token) as other:
            assert other.get(f"{PATH}/mine/rollout").status_code == 200
            # Whoever steers decides what devices run: a scope has to cover them, too.
            assert other.post(f"{PATH}/mine/rollout", json={"action": "reverse"}).status_code == 403


def test_a_policy_that_cannot_be_is_refused(server: RunningServer) -> None:
    with server.client() as api:
        for rollout, key in (
            ({"groups": []}, "invalid_document"),
            ({"groups": [{"percent": 10, "devices": 2}]}, "manifest_invalid"),
            ({"groups": [{"target": "site = 1"}]}, "target_invalid"),
            ({"groups": [{"persent": 10}]}, "invalid_document"),
        ):
            assert refused(api.put(f"{PATH}/bad", json=body("bad", "x", rollout=rollout))) == (400, key)


def test_the_command_line_tells_it_all(server: RunningServer, go: Callable[[], None], tmp_path: Path) -> None:
    def hedgerow(*arguments: str) -> Any:
        return run_offline(tmp_path, *arguments, HEDGEROW_WORKSPACE=str(server.workspace))

    with server.client() as api:
        enroll(api, "c1", "c2", "c3", of="told")
    (tmp_path / "line.toml").write_text('target = "tags.of = \'told\'"\n[modules.m]\ncommand = ["a"]\n')
    assert hedgerow("edge", "deploy", "told", "--manifest", "line.toml").returncode == 0
    go()
    (tmp_path / "line.toml").write_text('target = "tags.of = \'told\'"\n[modules.m]\ncommand = ["b"]\n')
    options = ("--rollout", "1,50%", "--success", "90", "--timeout", "30m", "--soak", "10m", "--on-error", "reverse")
    planned = hedgerow("edge", "plan", "line.toml", "--name", "told", *options).stdout
    assert [line for line in planned.splitlines() if line.startswith("Rollout 1. group 1, 1 device: c")], planned
    dry = hedgerow("edge", "deploy", "told", "--manifest", "line.toml", *options, "--dry-run")
    assert "Rollout 2. group 2, 1 device" in dry.stderr, dry.stderr
    done = hedgerow("edge", "deploy", "told", "--manifest", "line.toml", *options)
    assert (done.returncode, "edge rollout show told" in done.stderr) == (0, True), done.stderr
    stored = json.loads(hedgerow("edge", "show", "told", "--json").stdout)["rollout"]
    fields = ("devices", "percent", "success_percent", "error_percent", "timeout_s", "soak_s")
    groups = [tuple(one[field] for field in fields) for one in stored["groups"]]
    assert (stored["on_error"], groups) == ("reverse", [(1, None, 90, 10, 1800, 600), (None, 50, 90, 10, 1800, 600)])
    assert "not shared out yet" in hedgerow("edge", "rollout", "show", "told").stdout
    go()
    shown = hedgerow("edge", "rollout", "show", "told").stdout.splitlines()
    assert [line.split()[:4] for line in shown if line.startswith("group 1")] == [["group", "1", "running", "1"]]
    assert "revision 2 running: group 1 0/1 well, 2 groups waiting" in hedgerow("edge", "show", "told").stdout
    assert any("running, 0/3 well" in line for line in hedgerow("edge", "list", "--name", "told").stdout.splitlines())
    assert "group 1" in hedgerow("edge", "rollout", "devices", "told").stdout
    paused = hedgerow("edge", "rollout", "pause", "told", "--reason", "lunch")
    assert "lunch" in paused.stdout, paused.stderr
    watched = hedgerow("edge", "rollout", "show", "told", "--watch")
    assert (watched.returncode, "told revision 2 paused" in watched.stderr) == (1, True), watched.stderr
    assert json.loads(hedgerow("edge", "rollout", "resume", "told", "--json").stdout)["state"] == "running"
    assert hedgerow("edge", "rollout", "reverse", "told").returncode == 0
    again = hedgerow("edge", "rollout", "skip", "told")
    assert (again.returncode, "cannot be asked to skip" in again.stderr) == (1, True), again.stderr
    assert "reversing" in hedgerow("edge", "rollout", "list", "told").stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rollout", "0%"), "'0%' is no group"),
        (("--rollout", "10%,,5"), "'' is no group"),
        (("--rollout", "1.5"), "'1.5' is no group"),
        (("--success", "90"), "In which groups?"),
    ],
)
def test_options_that_mean_nothing(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    (tmp_path / "line.toml").write_text('target = "*"\n[modules.m]\ncommand = ["a"]\n')
    done = run_offline(tmp_path, "edge", "deploy", "x", "--manifest", "line.toml", *options)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
