"""``/api/v1/runs`` over HTTP. No controller runs: the tests play its part where a run has to be running or over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from hedgerow.clock import SystemClock
from registry.store import leases, runs, tokens
from registry.store.database import Database, open_database
from tests.registry_server import Api, RunningServer, problem_of


@contextmanager
def database_of(server: RunningServer) -> Iterator[Database]:
    with closing(open_database(None, server.workspace)) as database:
        yield database


def submit(api: Api, **fields: Any) -> dict[str, Any]:
    script = api.upload(b"print(1)", "train.py")
    snapshot = [{"path": script.path, "digest": script.digest, "size_bytes": script.size_bytes}]
    answered = api.post("/api/v1/runs", json={"experiment": "churn", "script": "train.py", "snapshot": snapshot} | fields)
    assert answered.status_code == 202, answered.text
    return dict(answered.json())


def run_token(server: RunningServer, run_id: str) -> str:
    with database_of(server) as database, database.write() as connection:
        return tokens.create(connection, name="run", role="run", subject=run_id, now=SystemClock().now()).secret or ""


def test_a_submitted_run_is_shown_with_its_activity(api: Api) -> None:
    run = submit(api, arguments=["--x"])
    assert (run["state"], run["arguments"]) == ("queued", ["--x"])
    assert api.get(f"/api/v1/runs/{run['id']}").json() == run
    assert api.get(f"/api/v1/activities/{run['activity_id']}").json()["kind"] == "run"
    assert api.get("/api/v1/runs?experiment=churn&limit=1").json()["items"][0]["id"] == run["id"]
    assert api.get("/api/v1/runs?experiment=other").json()["items"] == []


def test_work_that_nobody_knows_leads_to_the_list_of_works(api: Api) -> None:
    assert problem_of(api.get("/api/v1/activities/nope"))["remedy"].endswith("hedgerow activity list")


def test_a_runs_own_token_logs_to_that_run_only(server: RunningServer, api: Api) -> None:
    mine, other = submit(api), submit(api)
    with server.client(run_token(server, mine["id"])) as script:
        entry = {"metrics": [{"name": "auc", "value": 0.5, "step": 1}], "parameters": {"trees": "9"}}
        assert script.post(f"/api/v1/runs/{mine['id']}/log", json=entry).json()["metrics"] == {"auc": 0.5}
        assert script.post(f"/api/v1/runs/{other['id']}/log", json=entry).status_code == 403
        assert script.post("/api/v1/runs", json={}).status_code == 403
        assert script.get(f"/api/v1/runs/{mine['id']}").json()["parameters"] == {"trees": "9"}
    points = api.get(f"/api/v1/runs/{mine['id']}/metrics").json()["items"]
    assert [(point["name"], point["value"], point["step"]) for point in points] == [("auc", 0.5, 1)]
    with server.client(api.token("reader")) as reader:
        assert reader.post(f"/api/v1/runs/{mine['id']}/log", json=entry).status_code == 403
        assert reader.get(f"/api/v1/runs/{mine['id']}/metrics").status_code == 200


def test_points_come_in_pages(api: Api) -> None:
    run = submit(api)
    entry = {"metrics": [{"name": "loss", "value": float(number), "step": number} for number in range(5)]}
    assert api.post(f"/api/v1/runs/{run['id']}/log", json=entry).status_code == 200
    page = api.get(f"/api/v1/runs/{run['id']}/metrics?limit=3").json()
    rest = api.get(f"/api/v1/runs/{run['id']}/metrics?limit=3&after={page['next']}").json()
    assert [point["step"] for point in page["items"] + rest["items"]] == [0, 1, 2, 3, 4]
    assert rest["next"] is None
    assert len(api.get(f"/api/v1/runs/{run['id']}/metrics").json()["items"]) == 5
    assert problem_of(api.get(f"/api/v1/runs/{run['id']}/metrics?after=x"))["code"] == "invalid_page"


def test_outputs_of_a_run_that_is_over(server: RunningServer, api: Api) -> None:
    run = submit(api)
    output = api.upload(b"weights", "model/model.onnx")
    with database_of(server) as database, database.write() as connection:
        now = SystemClock().now()
        lease = leases.acquire(connection, "controller", "test", 30, now)
        assert lease is not None
        runs.finish(connection, lease, run["id"], state="succeeded", now=now, exit_code=0, outputs=[output])
    answered = api.get(f"/api/v1/runs/{run['id']}/outputs/model/model.onnx")
    assert (answered.status_code, answered.content) == (200, b"weights")
    assert api.get(f"/api/v1/runs/{run['id']}/outputs/model/../secret").status_code == 404
    assert problem_of(api.get(f"/api/v1/runs/{run['id']}/outputs/other"))["code"] == "not_found"
    answered = api.post(f"/api/v1/runs/{run['id']}/log", json={"parameters": {"late": "1"}})
    assert (answered.status_code, problem_of(answered)["code"]) == (409, "run_ended")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"script": "other.py"}, 400, "run_refused"),
        ({"script": "../train.py"}, 400, "invalid_document"),
        ({"snapshot": []}, 400, "invalid_document"),
        ({"experiment": "Churn"}, 400, "invalid_document"),
        ({"snapshot": [{"path": "train.py", "digest": "sha256:" + "0" * 64, "size_bytes": 1}]}, 400, "blob_missing"),
    ],
)
def test_wrong_submissions(api: Api, fields: dict[str, Any], status: int, code: str) -> None:
    script = api.upload(b"print(1)", "train.py")
    snapshot = [{"path": script.path, "digest": script.digest, "size_bytes": script.size_bytes}]
    body = {"experiment": "churn", "script": "train.py", "snapshot": snapshot} | fields
    answered = api.post("/api/v1/runs", json=body)
    assert (answered.status_code, problem_of(answered)["code"]) == (status, code), answered.text


def test_runs_that_are_not_there(api: Api) -> None:
    for path in ("absent", "absent/metrics", "absent/outputs/x"):
        assert problem_of(api.get(f"/api/v1/runs/{path}"))["code"] == "not_found"
    assert problem_of(api.get("/api/v1/runs/a%20b"))["code"] == "invalid_name"
