"""``/api/v1/images``: ask for a build, find and delete what builds have made."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, request
from sqlalchemy import Connection

from hedgerow.contracts.api import BuildImage, Page
from hedgerow.contracts.names import Reference
from registry.errors import BuildRefused
from registry.server.http import MAX_LIST_BODY_BYTES, answer, context, needs, no_content, page_arguments, read_body
from registry.store import activities, blobs, environments, images, models


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("images", __name__, url_prefix="/api/v1/images")
    blueprint.post("")(build_image)
    blueprint.get("")(list_images)
    blueprint.get("/<reference>")(show_image)
    blueprint.delete("/<reference>")(delete_image)
    return blueprint


@needs("contributor")
def build_image() -> Response:
    """202 with the Activity of the build, which the controller works off."""
    here = context()
    wanted = read_body(BuildImage, limit_bytes=MAX_LIST_BODY_BYTES)
    now = here.clock.now()
    with here.database.write() as connection:
        pinned = _resolved(connection, wanted)
        activity_id = activities.create(connection, kind="image.build", subject=wanted.name, request=pinned, now=now)
        activity = activities.get(connection, activity_id)
    here.wakeups.wake("controller")
    return answer(activity, 202)


@needs("reader")
def list_images() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = images.newest(connection, limit, after, name=request.args.get("name"))
    return answer(Page(items=found, next=following))


@needs("reader")
def show_image(reference: str) -> Response:
    with context().database.read() as connection:
        return answer(images.get(connection, Reference.parse(reference)))


@needs("contributor")
def delete_image(reference: str) -> Response:
    with context().database.write() as connection:
        images.delete_version(connection, Reference.parse(reference))
    return no_content()


def _resolved(connection: Connection, wanted: BuildImage) -> BuildImage:
    """The request with every reference pinned to the version that it means now; mistakes are refused at once.

    Raises RecordNotFound, InvalidReference, BlobMissing, FilesCollide, BuildRefused.
    """
    found = [models.get(connection, Reference.parse(text)) for text in wanted.models]
    names = [manifest.name for manifest in found]
    if len(set(names)) < len(names):
        raise BuildRefused(name=wanted.name, problem="one model is given twice; an image serves one version of a name")
    models.check_paths(wanted.source)
    blobs.require(connection, wanted.source)
    if wanted.script is not None and wanted.script not in {entry.path for entry in wanted.source}:
        raise BuildRefused(name=wanted.name, problem=f"its source has no file {wanted.script}")
    environment = wanted.environment
    if environment is not None:
        resolved = environments.get(connection, Reference.parse(environment))
        environment = f"{resolved.name}:{resolved.version}"
    pinned = [f"{manifest.name}:{manifest.version}" for manifest in found]
    return msgspec.structs.replace(wanted, models=pinned, environment=environment)
