"""Runs in the database: submitted whole, logged to while they run, ended once and together with their activity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hedgerow.contracts.api import LoggedMetric, LogToRun, SubmitRun
from hedgerow.contracts.model import FileEntry
from hedgerow.contracts.work import Problem, Run
from registry.blobs.errors import BlobMissing
from registry.errors import FilesCollide, InvalidPage, LeaseLost, RecordNotFound, RunEnded, RunRefused, TokenRefused
from registry.store import activities, leases, runs, tokens
from registry.store.database import Database
from registry.store.leases import Lease
from tests.registry_stores import BACKENDS, NOW, after, digest_of_text, known_file, ready_database


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as ready:
        yield ready


@pytest.fixture
def lease(database: Database) -> Lease:
    with database.write() as connection:
        taken = leases.acquire(connection, "controller", "me", 30, NOW)
    assert taken is not None
    return taken


def submit(database: Database, *, seconds: float = 0.0, experiment: str = "churn", **fields: Any) -> Run:
    with database.write() as connection:
        values: dict[str, Any] = {"script": "train.py", "snapshot": [known_file(connection, "train.py", "print(1)")]} | fields
        return runs.submit(connection, SubmitRun(experiment=experiment, **values), after(seconds))


def logged(**values: float) -> LogToRun:
    return LogToRun(metrics=[LoggedMetric(name=name, value=value, step=3) for name, value in values.items()])


def test_a_run_is_queued_with_its_snapshot(database: Database, lease: Lease) -> None:
    run = submit(database, arguments=["--trees", "9"], variables={"SECRET": "s3cret"})
    with database.write() as connection:
        assert runs.get(connection, run.id) == run
        assert (run.state, run.arguments, run.created_at) == ("queued", ["--trees", "9"], NOW)
        assert "s3cret" not in msgspec.json.encode(run).decode()
        claimed = activities.claim(connection, lease, ["run"], NOW)
    assert claimed is not None
    assert (claimed[0].id, claimed[0].subject) == (run.activity_id, run.id)
    assert msgspec.json.decode(claimed[1], type=runs.RunTask) == runs.RunTask(run=run.id, variables={"SECRET": "s3cret"})


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"script": "other.py"}, RunRefused),
        ({"variables": {"A=B": "x"}}, RunRefused),
        ({"snapshot": [FileEntry(path="train.py", digest=digest_of_text("never sent"), size_bytes=1)]}, BlobMissing),
    ],
)
def test_what_cannot_run_is_refused_and_leaves_nothing(
    database: Database, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        submit(database, **fields)
    with database.read() as connection:
        assert runs.newest(connection, 10) == ([], None)
        assert activities.newest(connection, 10) == []


def test_a_snapshot_whose_files_collide(database: Database) -> None:
    with database.write() as connection:
        files = [known_file(connection, "train.py", "1"), known_file(connection, "train.py/x", "2")]
    with pytest.raises(FilesCollide):
        submit(database, snapshot=files)


def test_metrics_keep_their_last_value_and_all_points(database: Database) -> None:
    run = submit(database)
    for number, entry in enumerate([logged(auc=0.5), logged(auc=0.75, loss=1.0)]):
        with database.write() as connection:
            runs.log(connection, run.id, entry)
        with database.write_series() as connection:
            runs.add_points(connection, run.id, entry, 1000 + number)
    with database.write() as connection:
        found = runs.log(connection, run.id, LogToRun(parameters={"trees": "9"}))
    assert (found.metrics, found.parameters) == ({"auc": 0.75, "loss": 1.0}, {"trees": "9"})
    with database.read_series() as connection:
        first, following = runs.points(connection, run.id, 2)
        rest, end = runs.points(connection, run.id, 2, following)
        with pytest.raises(InvalidPage):
            runs.points(connection, run.id, 2, "x")
    assert [(p.name, p.value, p.step, p.time_ms) for p in first + rest] == [
        ("auc", 0.5, 3, 1000),
        ("auc", 0.75, 3, 1001),
        ("loss", 1.0, 3, 1001),
    ]
    assert end is None


def test_names_and_values_that_nobody_could_read(database: Database) -> None:
    run = submit(database)
    for entry in (LogToRun(parameters={"": "x"}), LogToRun(parameters={"x": "y" * 10_001}), logged(**{"n" * 251: 1.0})):
        with pytest.raises(RunRefused), database.write() as connection:
            runs.log(connection, run.id, entry)


def test_the_end_closes_the_record_and_revokes_the_token(database: Database, lease: Lease) -> None:
    run = submit(database)
    with database.write() as connection:
        started = runs.start(connection, lease, run.id, after(1))
        assert (started.state, started.started_at) == ("running", after(1))
        token = tokens.create(connection, name="run", role="run", subject=run.id, now=NOW)
        output = known_file(connection, "model.onnx", "weights")
        runs.finish(connection, lease, run.id, state="succeeded", now=after(2), exit_code=0, outputs=[output])
        ended = runs.get(connection, run.id)
        assert (ended.state, ended.exit_code, ended.outputs, ended.ended_at) == ("succeeded", 0, [output], after(2))
        with pytest.raises(TokenRefused, match="revoked"):
            tokens.verify(connection, token.secret or "", after(3))
        with pytest.raises(RunEnded):
            runs.log(connection, run.id, logged(auc=1.0))
        runs.finish(connection, lease, run.id, state="failed", now=after(4))
        assert runs.get(connection, run.id) == ended, "a second end is ignored"


def test_outputs_must_be_stored(database: Database, lease: Lease) -> None:
    run = submit(database)
    absent = FileEntry(path="x", digest=digest_of_text("never stored"), size_bytes=1)
    with pytest.raises(BlobMissing), database.write() as connection:
        runs.finish(connection, lease, run.id, state="succeeded", now=NOW, outputs=[absent])


def test_a_run_follows_its_activity_into_the_end(database: Database, lease: Lease) -> None:
    cancelled, failed, waiting = (submit(database, seconds=number) for number in range(3))
    problem = Problem(code="interrupted", message="It was interrupted", remedy="Start it again.")
    with database.write() as connection:
        activities.cancel(connection, cancelled.activity_id, NOW)
        claimed = activities.claim(connection, lease, ["run"], NOW)
        assert claimed is not None
        runs.start(connection, lease, failed.id, NOW)
        activities.finish(connection, lease, claimed[0].id, state="failed", problem=problem, now=NOW)
        assert sorted(runs.settle(connection, lease, after(5))) == sorted([cancelled.id, failed.id])
        assert runs.settle(connection, lease, after(6)) == []
        found = {run.id: (run.state, run.problem) for run in runs.newest(connection, 10)[0]}
    assert found == {cancelled.id: ("cancelled", None), failed.id: ("failed", problem), waiting.id: ("queued", None)}


def test_a_controller_that_lost_its_lease_ends_nothing(database: Database, lease: Lease) -> None:
    run = submit(database)
    with database.write() as connection:
        assert leases.acquire(connection, "controller", "another", 30, after(31)) is not None
    with pytest.raises(LeaseLost), database.write() as connection:
        runs.finish(connection, lease, run.id, state="failed", now=NOW)


def test_runs_come_newest_first_in_pages(database: Database) -> None:
    made = [submit(database, seconds=number, experiment=["a", "b"][number % 2]).id for number in range(4)]
    with database.read() as connection:
        first, following = runs.newest(connection, 3)
        rest, end = runs.newest(connection, 3, following)
        of_a, _ = runs.newest(connection, 3, experiment="a")
        with pytest.raises(RecordNotFound):
            runs.get(connection, "absent")
    assert ([run.id for run in first + rest], end) == (made[::-1], None)
    assert [run.id for run in of_a] == [made[2], made[0]]
