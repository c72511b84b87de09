"""``/api/v1/runs``: submit training runs, take what their scripts log, give out what they made."""

from __future__ import annotations

from typing import get_args

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.clock import unix_ms
from hedgerow.contracts.api import LogToRun, Page, SubmitRun
from hedgerow.contracts.names import SECRET_PREFIX, check_name
from hedgerow.contracts.work import MetricPoint, Run, RunState
from registry.blobs.errors import BlobDamaged, BlobMissing, BlobSizeWrong
from registry.errors import FilesCollide, InvalidPage, RecordNotFound, RoleForbids, RunEnded, RunRefused
from registry.server import arguments
from registry.server.content import send_blob
from registry.server.errors import RangeRefused, TooManyTransfers
from registry.server.http import (
    MAX_LIST_BODY_BYTES,
    MAX_PAGE,
    answer,
    caller,
    check_scope,
    context,
    page_arguments,
    read_body,
    tell,
    write_once,
)
from registry.server.operation import PAGE, QueryField, operation
from registry.server.revisions import answer_seen
from registry.store import runs, secrets

# Charts want all points at once; a point takes about 80 bytes.
_MOST_POINTS = 50_000
_FILTERS = (
    QueryField("experiment", "an experiment's name, or how names begin with a star behind it (`churn-*`)"),
    QueryField("state", "runs in this state", choices=get_args(RunState)),
)
_POINTS = (
    QueryField("limit", f"how many at most, 1 to {MAX_PAGE}; {_MOST_POINTS} if absent", "integer", least=1, most=MAX_PAGE),
    QueryField("after", "the `next` of the page before"),
)


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("runs", __name__, url_prefix="/api/v1/runs")
    blueprint.post("")(submit_run)
    blueprint.get("")(list_runs)
    blueprint.get("/<run_id>")(show_run)
    blueprint.get("/<run_id>/metrics")(list_points)
    blueprint.post("/<run_id>/log")(log_to_run)
    blueprint.get("/<run_id>/outputs/<path:path>")(get_output)
    return blueprint


@operation(
    "Submit a run",
    "contributor",
    scope="runs",
    body=SubmitRun,
    result=Run,
    status=202,
    errors=(BlobMissing, BlobSizeWrong, FilesCollide, RunRefused),
)
def submit_run() -> Response:
    """Queues a script. The run's activity tells its story, and is what is followed and cancelled."""
    here = context()
    wanted = read_body(SubmitRun, limit_bytes=MAX_LIST_BODY_BYTES)
    check_scope("runs", wanted.experiment)
    named = [value.removeprefix(SECRET_PREFIX) for value in wanted.variables.values() if value.startswith(SECRET_PREFIX)]
    for name in named:
        check_scope("secrets", check_name(name, "secret"))

    def submit(connection: Connection) -> Response:
        for name in named:
            secrets.get(connection, name)  # a missing one is told now, not when the run starts
        run = runs.submit(connection, wanted, here.clock.now())
        tell(connection, "run.submitted", f"run/{run.id}", experiment=run.experiment, script=run.script)
        return answer(run, 202)

    answered = write_once(submit)
    here.wakeups.wake("controller")
    return answered


@operation("List runs", "reader", scope="runs", result=Page[Run], query=(*PAGE, *_FILTERS))
def list_runs() -> Response:
    """Newest first."""
    limit, after = page_arguments()
    wanted = {"experiment": arguments.text("experiment"), "state": arguments.text("state")}
    with context().database.read() as connection:
        found, following = runs.newest(connection, limit, after, **wanted)
    return answer(Page(items=found, next=following))


@operation("Show a run", "reader", "run", scope="runs", result=Run)
def show_run(run_id: str) -> Response:
    """With the last value of each metric. A run's own token shows that run only."""
    _check_own(run_id, "read")
    with context().database.read() as connection:
        return answer_seen(runs.get(connection, run_id))


@operation("List a run's metric values", "reader", scope="runs", result=Page[MetricPoint], query=_POINTS, errors=(InvalidPage,))
def list_points(run_id: str) -> Response:
    """Every logged value, oldest first."""
    here = context()
    limit = arguments.integer("limit") or _MOST_POINTS
    with here.database.read() as connection:
        runs.get(connection, run_id)
    with here.database.read_series() as connection:
        found, following = runs.points(connection, run_id, limit, arguments.text("after"))
    return answer(Page(items=found, next=following))


@operation("Log to a run", "contributor", "run", scope="runs", body=LogToRun, result=Run, errors=(RunEnded, RunRefused))
def log_to_run(run_id: str) -> Response:
    """Metric values and parameters of a run that has not ended. A run's own token logs to that run only."""
    here = context()
    _check_own(run_id, "log to")
    entry = read_body(LogToRun)
    first_time = []

    def log(connection: Connection) -> Response:
        # No event: a script may log a thousand times a minute, and nobody's decision is behind it.
        run = runs.log(connection, run_id, entry)
        first_time.append(True)
        return answer(run)

    # The record says first whether the run still takes anything; a lost connection in between costs a point, never adds one.
    answered = write_once(log)
    if first_time:
        with here.database.write_series() as connection:
            runs.add_points(connection, run_id, entry, unix_ms(here.clock.now()))
    return answered


@operation(
    "Download an output of a run",
    "reader",
    scope="runs",
    result="application/octet-stream",
    errors=(RecordNotFound, RangeRefused, BlobDamaged, TooManyTransfers),
)
def get_output(run_id: str, path: str) -> Response:
    """One file that the script left in its output folder; `Range` asks for a part of it."""
    here = context()
    with here.database.read() as connection:
        run = runs.get(connection, run_id)
    for entry in run.outputs:
        if entry.path == path:
            return send_blob(here.blobs, entry.digest, name=path)
    raise RecordNotFound(kind="output", name=f"{path[:200]} of run {run_id}", command="run")


def _check_own(run_id: str, action: str) -> None:
    who = caller()
    if who.role == "run" and who.subject != run_id:
        raise RoleForbids(role="run", action=f"{action} run {run_id[:128]}", needed="contributor")
