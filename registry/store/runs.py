"""Training runs: what was submitted, what it logged, how it ended.

Life-cycle: a run follows its activity (``queued → running → succeeded | failed | cancelled``). The controller moves both in
one transaction; where the activity ended without it (cancelled while queued, interrupted by a crash) :func:`settle` moves
the run after it. The server adds what a running script logs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select, update

from hedgerow.contracts.api import LogToRun, SubmitRun
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.model import FileEntry, digest_of_files
from hedgerow.contracts.names import check_name
from hedgerow.contracts.work import ENDED, MetricPoint, Problem, Run, RunState
from registry.errors import InvalidPage, RecordNotFound, RunEnded, RunRefused
from registry.store import activities as activity_store
from registry.store import blobs, events, tokens
from registry.store.leases import Lease
from registry.store.leases import check as check_lease
from registry.store.matching import name_matches
from registry.store.models import check_paths
from registry.store.tables import activities, metric_points, run_blobs, run_data, runs
from registry.store.time_text import to_text

RUN = "run"
SNAPSHOT, OUTPUTS = "snapshot", "outputs"
_LONGEST_NAME, _LONGEST_VALUE = 250, 10_000


class RunTask(msgspec.Struct, frozen=True, kw_only=True):
    """The request of a ``run`` activity. ``variables`` may be meant for the script only, so they are not in the run's record."""

    run: str
    variables: dict[str, str] = {}


def submit(connection: Connection, wanted: SubmitRun, now: datetime) -> Run:
    """Record a run and queue its activity. Raises BlobMissing, BlobSizeWrong, FilesCollide, RunRefused."""
    check_paths(wanted.snapshot)
    if wanted.script not in {entry.path for entry in wanted.snapshot}:
        raise RunRefused(problem=f"its snapshot has no file {wanted.script}")
    for name in wanted.variables:
        if not name or "=" in name:
            raise RunRefused(problem=f"{name!r} cannot name an environment variable")
    names = [entry.name for entry in wanted.data]
    if len(set(names)) < len(names):
        raise RunRefused(problem="one of its data sets is given twice; give each a name of its own")
    blobs.require(connection, wanted.snapshot)
    run_id = activity_store.new_id(now)
    task = RunTask(run=run_id, variables=wanted.variables)
    activity_id = activity_store.create(connection, kind=RUN, subject=run_id, request=task, now=now)
    run = Run(
        id=run_id,
        experiment=wanted.experiment,
        state="queued",
        script=wanted.script,
        arguments=wanted.arguments,
        snapshot=sorted(wanted.snapshot, key=lambda entry: entry.path),
        snapshot_digest=digest_of_files(wanted.snapshot),
        source=wanted.source,
        data=wanted.data,
        activity_id=activity_id,
        created_at=now,
    )
    row = {"id": run.id, "experiment": run.experiment, "state": run.state, "activity_id": activity_id, "created_at": to_text(now)}
    commit = None if wanted.source is None else wanted.source.commit
    connection.execute(runs.insert().values(document=encode(run).decode(), source_commit=commit, **row))
    data = [{"run_id": run_id, "data_name": entry.name, "digest": entry.digest} for entry in wanted.data]
    if data:
        connection.execute(run_data.insert(), data)
    _insert_blobs(connection, run_id, SNAPSHOT, run.snapshot)
    return run


def get(connection: Connection, run_id: str) -> Run:
    """Raises RecordNotFound."""
    return decode(_row(connection, run_id).document, Run)


def newest(
    connection: Connection,
    limit: int,
    after: str | None = None,
    *,
    experiment: str | None = None,
    state: str | None = None,
) -> tuple[list[Run], str | None]:
    """Newest first, with the ``after`` of the following page (None at the end). Ids sort by creation."""
    query = select(runs.c.document).order_by(runs.c.id.desc()).limit(limit + 1)
    if experiment is not None:
        query = query.where(name_matches(runs.c.experiment, experiment, "experiment"))
    if state is not None:
        query = query.where(runs.c.state == state)
    if after is not None:
        query = query.where(runs.c.id < check_name(after, "run"))
    found = [decode(row.document, Run) for row in connection.execute(query)]
    return found[:limit], found[limit - 1].id if len(found) > limit else None


# --- what the script logs -----------------------------------------------------------------------------------------------


def log(connection: Connection, run_id: str, entry: LogToRun) -> Run:
    """Take parameters and the last value of each metric into the run's record. Raises RecordNotFound, RunEnded, RunRefused."""
    run = _locked(connection, run_id)
    check_entry(entry)
    if run.state in ENDED:
        raise RunEnded(run=run_id, state=run.state)
    last = {metric.name: metric.value for metric in entry.metrics}
    changed = msgspec.structs.replace(run, metrics=run.metrics | last, parameters=run.parameters | entry.parameters)
    _write(connection, changed)
    return changed


def check_entry(entry: LogToRun) -> None:
    """Raises RunRefused for names and values that are too long to show."""
    for name in [metric.name for metric in entry.metrics] + list(entry.parameters):
        if not 0 < len(name) <= _LONGEST_NAME:
            raise RunRefused(problem=f"a metric's or parameter's name has 1 to {_LONGEST_NAME} characters, not {len(name)}")
    for name, value in entry.parameters.items():
        if len(value) > _LONGEST_VALUE:
            raise RunRefused(problem=f"parameter {name} has {len(value)} characters; {_LONGEST_VALUE} are kept")


def add_points(connection: Connection, run_id: str, entry: LogToRun, time_ms: int) -> None:
    """Append metric values to their series. ``connection`` is to the series database."""
    points = [
        {"run_id": run_id, "name": metric.name, "step": metric.step, "value": metric.value, "time_ms": time_ms}
        for metric in entry.metrics
    ]
    if points:
        connection.execute(metric_points.insert(), points)


def points(connection: Connection, run_id: str, limit: int, after: str | None = None) -> tuple[list[MetricPoint], str | None]:
    """Logged values, oldest first. ``connection`` is to the series database. Raises InvalidPage."""
    query = select(metric_points).where(metric_points.c.run_id == run_id).order_by(metric_points.c.id).limit(limit + 1)
    if after is not None:
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            raise InvalidPage(value=after[:80])
        query = query.where(metric_points.c.id > int(after))
    rows = list(connection.execute(query))
    found = [MetricPoint(name=row.name, value=row.value, step=row.step, time_ms=row.time_ms) for row in rows[:limit]]
    return found, str(rows[limit - 1].id) if len(rows) > limit else None


# --- the controller's half ----------------------------------------------------------------------------------------------


def start(connection: Connection, lease: Lease, run_id: str, now: datetime) -> Run:
    """The script is about to run. Raises LeaseLost."""
    check_lease(connection, lease)
    run = msgspec.structs.replace(_locked(connection, run_id), state="running", started_at=now)
    _write(connection, run)
    return run


def finish(
    connection: Connection,
    lease: Lease,
    run_id: str,
    *,
    state: RunState,
    now: datetime,
    exit_code: int | None = None,
    problem: Problem | None = None,
    outputs: Iterable[FileEntry] = (),
) -> None:
    """The run is over: its record is closed, its token revoked. Outputs must be stored blobs. Raises LeaseLost, BlobMissing."""
    check_lease(connection, lease)
    kept = sorted(outputs, key=lambda entry: entry.path)
    blobs.require(connection, kept)
    _end(connection, _locked(connection, run_id), state, now, exit_code=exit_code, problem=problem, outputs=kept)


def settle(connection: Connection, lease: Lease, now: datetime) -> list[str]:
    """End every run whose activity has ended without it; returns their ids. Raises LeaseLost."""
    check_lease(connection, lease)
    query = (
        select(runs.c.id, activities.c.state, activities.c.problem)
        .join(activities, activities.c.id == runs.c.activity_id)
        .where(runs.c.state.in_(["queued", "running"]), activities.c.state.in_(sorted(ENDED)))
    )
    lost = list(connection.execute(query))
    for row in lost:
        problem = msgspec.json.decode(row.problem, type=Problem) if row.problem else None
        _end(connection, _locked(connection, row.id), row.state, now, problem=problem)
    return [row.id for row in lost]


# --- below --------------------------------------------------------------------------------------------------------------


def _end(
    connection: Connection,
    run: Run,
    state: RunState,
    now: datetime,
    *,
    exit_code: int | None = None,
    problem: Problem | None = None,
    outputs: list[FileEntry] | None = None,
) -> None:
    if run.state in ENDED:
        return
    ended = msgspec.structs.replace(run, state=state, exit_code=exit_code, problem=problem, outputs=outputs or [], ended_at=now)
    _write(connection, ended)
    _insert_blobs(connection, run.id, OUTPUTS, ended.outputs)
    tokens.revoke_for(connection, "run", run.id, now)
    details = {"experiment": run.experiment} | ({} if problem is None else {"problem": problem.message[:1000]})
    actor = events.system("controller")
    events.record(connection, kind=f"run.{state}", subject=f"run/{run.id}", actor=actor, now=now, details=details)


def _write(connection: Connection, run: Run) -> None:
    connection.execute(update(runs).where(runs.c.id == run.id).values(state=run.state, document=encode(run).decode()))


def _insert_blobs(connection: Connection, run_id: str, part: str, files: Iterable[FileEntry]) -> None:
    rows = [{"run_id": run_id, "part": part, "path": entry.path, "digest": entry.digest} for entry in files]
    if rows:
        connection.execute(run_blobs.insert(), rows)


def _locked(connection: Connection, run_id: str) -> Run:
    """Server and controller both change the record: whoever comes second waits for the first one's commit."""
    return decode(_row(connection, run_id, for_update=True).document, Run)


def _row(connection: Connection, run_id: str, *, for_update: bool = False) -> Row[Any]:
    check_name(run_id, "run")
    query = select(runs.c.document).where(runs.c.id == run_id)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    if row is None:
        raise RecordNotFound(kind="run", name=run_id, command="run")
    return row
