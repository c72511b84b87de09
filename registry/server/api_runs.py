"""``/api/v1/runs``: submit training runs, take what their scripts log, give out what they made."""

from __future__ import annotations

from flask import Blueprint, Response, request

from hedgerow.clock import unix_ms
from hedgerow.contracts.api import LogToRun, Page, SubmitRun
from registry.errors import RecordNotFound, RoleForbids
from registry.server.content import send_blob
from registry.server.http import MAX_LIST_BODY_BYTES, answer, caller, context, needs, page_arguments, read_body
from registry.store import runs

# Charts want all points at once; a point takes about 80 bytes.
_MOST_POINTS = 50_000


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


@needs("contributor")
def submit_run() -> Response:
    """202 with the Run; its activity tells the story, and is what is cancelled."""
    here = context()
    wanted = read_body(SubmitRun, limit_bytes=MAX_LIST_BODY_BYTES)
    with here.database.write() as connection:
        run = runs.submit(connection, wanted, here.clock.now())
    here.wakeups.wake("controller")
    return answer(run, 202)


@needs("reader")
def list_runs() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = runs.newest(connection, limit, after, experiment=request.args.get("experiment"))
    return answer(Page(items=found, next=following))


@needs("reader", "run")
def show_run(run_id: str) -> Response:
    """A run's own token shows that run only."""
    _check_own(run_id, "read")
    with context().database.read() as connection:
        return answer(runs.get(connection, run_id))


@needs("reader")
def list_points(run_id: str) -> Response:
    """Every logged value, oldest first: up to ``limit`` (50 000 unless given) after ``after``."""
    here = context()
    limit, after = page_arguments()
    with here.database.read() as connection:
        runs.get(connection, run_id)
    with here.database.read_series() as connection:
        found, following = runs.points(connection, run_id, limit if "limit" in request.args else _MOST_POINTS, after)
    return answer(Page(items=found, next=following))


@needs("contributor", "run")
def log_to_run(run_id: str) -> Response:
    """200 with the Run. A run's own token logs to that run only."""
    here = context()
    _check_own(run_id, "log to")
    entry = read_body(LogToRun)
    # The record says first whether the run still takes anything; a lost connection in between costs a point, never adds one.
    with here.database.write() as connection:
        run = runs.log(connection, run_id, entry)
    with here.database.write_series() as connection:
        runs.add_points(connection, run_id, entry, unix_ms(here.clock.now()))
    return answer(run)


@needs("reader")
def get_output(run_id: str, path: str) -> Response:
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
