"""``/api/v1/gc``: ask for a garbage collection, which the controller does."""

from __future__ import annotations

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import CollectGarbage
from hedgerow.contracts.names import BLOBS_COLLECT
from hedgerow.contracts.work import Activity
from registry.server.http import answer, context, read_body, tell, write_once
from registry.server.operation import operation
from registry.store import activities


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("gc", __name__, url_prefix="/api/v1/gc")
    blueprint.post("")(collect_garbage)
    return blueprint


@operation("Free what nothing refers to", "owner", scope="blobs", body=CollectGarbage, result=Activity, status=202)
def collect_garbage() -> Response:
    """202 with the Activity; uploads and everything else go on meanwhile."""
    here = context()
    wanted = read_body(CollectGarbage)
    response = write_once(lambda connection: _queue(connection, wanted))
    here.wakeups.wake("controller")
    return response


def _queue(connection: Connection, wanted: CollectGarbage) -> Response:
    now = context().clock.now()
    activity_id = activities.create(connection, kind=BLOBS_COLLECT, subject="blobs", request=wanted, now=now)
    tell(connection, "collection.requested", f"activity/{activity_id}", dry_run=str(wanted.dry_run).lower())
    return answer(activities.get(connection, activity_id), 202)
