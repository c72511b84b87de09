"""``POST /api/v1/models/REF/convert``: ask for a model as ONNX, checked against the original and registered beside it."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import ConvertModel
from hedgerow.contracts.names import Reference
from hedgerow.contracts.work import Activity
from registry.errors import RecordDeleted, RecordNotFound
from registry.server.http import answer, check_scope, context, read_body, tell, write_once
from registry.server.operation import operation
from registry.store import activities, blobs, conversions, models
from registry.store.activities import ConvertTask


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("conversions", __name__, url_prefix="/api/v1/models")
    blueprint.post("/<reference>/convert")(convert_model)
    return blueprint


@operation(
    "Convert a model to ONNX",
    "contributor",
    scope="models",
    body=ConvertModel,
    result=Activity,
    status=202,
    errors=(RecordNotFound, RecordDeleted),
)
def convert_model(reference: str) -> Response:
    """The Activity's result names the version that was registered; an equal conversion is not made again."""
    named, wanted = Reference.parse(reference), read_body(ConvertModel)
    check_scope("models", wanted.name or conversions.converted_name(named.name))

    def queue(connection: Connection) -> Response:
        now = context().clock.now()
        source = models.hold(connection, named)
        task = ConvertTask(**{**msgspec.structs.asdict(wanted), "source": f"{source.name}:{source.version}"})
        activity_id = activities.create(connection, kind="model.convert", subject=source.name, request=task, now=now)
        held = [*source.files, *([source.sample_input] if source.sample_input else [])]
        blobs.hold_for_activity(connection, activity_id, [entry.digest for entry in held])
        tell(connection, "model.conversion-requested", f"model/{task.source}", activity=activity_id)
        return answer(activities.get(connection, activity_id), 202)

    answered = write_once(queue)
    context().wakeups.wake("controller")
    return answered
