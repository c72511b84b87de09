"""``/api/v1/models``: register, find, read and delete model versions."""

from __future__ import annotations

from flask import Blueprint, Response, request

from hedgerow.contracts.api import Page, RegisterModel
from hedgerow.contracts.names import Reference
from registry.errors import RecordNotFound
from registry.server.content import send_blob
from registry.server.errors import InvalidArgument
from registry.server.http import MAX_LIST_BODY_BYTES, answer, context, needs, no_content, page_arguments, read_body
from registry.store import models


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("models", __name__, url_prefix="/api/v1/models")
    blueprint.post("")(register_model)
    blueprint.get("")(list_models)
    blueprint.get("/<reference>")(show_model)
    blueprint.delete("/<reference>")(delete_model)
    blueprint.get("/<reference>/files/<path:path>")(get_model_file)
    return blueprint


@needs("contributor")
def register_model() -> Response:
    here = context()
    wanted = read_body(RegisterModel, limit_bytes=MAX_LIST_BODY_BYTES)
    with here.database.write() as connection:
        manifest = models.register(connection, wanted, here.clock.now())
    return answer(manifest, 201)


@needs("reader")
def list_models() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = models.newest(connection, limit, after, name=request.args.get("name"), tags=_tags())
    return answer(Page(items=found, next=following))


@needs("reader")
def show_model(reference: str) -> Response:
    with context().database.read() as connection:
        return answer(models.get(connection, Reference.parse(reference)))


@needs("contributor")
def delete_model(reference: str) -> Response:
    with context().database.write() as connection:
        models.delete_version(connection, Reference.parse(reference))
    return no_content()


@needs("reader")
def get_model_file(reference: str, path: str) -> Response:
    here = context()
    with here.database.read() as connection:
        manifest = models.get(connection, Reference.parse(reference))
    for entry in manifest.files:
        if entry.path == path:
            return send_blob(here.blobs, entry.digest, name=path)
    raise RecordNotFound(kind="file", name=f"{path[:200]} in {manifest.name}:{manifest.version}", command="model")


def _tags() -> dict[str, str]:
    """``?tag=key=value``, any number of times."""
    pairs = [text.partition("=") for text in request.args.getlist("tag")]
    for key, equals, value in pairs:
        if not (key and equals) or "\0" in key + value:
            raise InvalidArgument(name="tag", value=f"{key}{equals}{value}"[:80], hint="Write tag=KEY=VALUE.")
    return {key: value for key, _, value in pairs}
