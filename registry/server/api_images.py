"""``/api/v1/images``: ask for a build, find, tag and delete what builds have made."""

from __future__ import annotations

from typing import cast

import msgspec
from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_images import BuildImage, ChangeImage
from hedgerow.contracts.image import ImageKind, ImageRecord
from hedgerow.contracts.names import Reference
from hedgerow.contracts.platforms import PlatformRepeated, UnsupportedPlatform, normal_platforms
from hedgerow.contracts.work import Activity
from registry.blobs.errors import BlobMissing, BlobSizeWrong
from registry.errors import (
    BuildRefused,
    FilesCollide,
    InUse,
    InvalidFilter,
    PreconditionFailed,
    RecordDeleted,
    RecordNotFound,
    RoleForbids,
)
from registry.server import arguments
from registry.server.errors import DocumentTooLarge
from registry.server.http import (
    MAX_LIST_BODY_BYTES,
    actor,
    answer,
    answer_tagged,
    caller,
    check_match,
    check_scope,
    context,
    is_forced,
    no_content,
    page_arguments,
    read_body,
    tell,
    tell_deleted,
    write_once,
)
from registry.server.operation import FORCE, PAGE, QueryField, operation
from registry.store import activities, blobs, conversions, environments, images, models
from registry.store.image_conditions import Wanted

_FILTERS = (
    *PAGE,
    QueryField("name", "only versions of this image; with a star at the end, of images whose names begin so"),
    QueryField("kind", "only of this kind", choices=("onnx", "docker", "fpga")),
    QueryField("model", "only made of this model: NAME (any version), NAME:VERSION, NAME@ALIAS or NAME@sha256:…"),
    QueryField("digest", "only with this content"),
    QueryField("tag", "KEY=VALUE: only with this tag; KEY: only with a tag of this key", repeated=True),
)

_LOCAL_BASES = ("oci:", "docker-archive:")


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("images", __name__, url_prefix="/api/v1/images")
    blueprint.post("")(build_image)
    blueprint.get("")(list_images)
    blueprint.get("/<reference>")(show_image)
    blueprint.patch("/<reference>")(change_image)
    blueprint.delete("/<reference>")(delete_image)
    return blueprint


@operation(
    "Build an image",
    "contributor",
    scope="images",
    body=BuildImage,
    result=Activity,
    status=202,
    errors=(
        *(RecordNotFound, RecordDeleted, BlobMissing, BlobSizeWrong, FilesCollide, BuildRefused, DocumentTooLarge),
        *(UnsupportedPlatform, PlatformRepeated),
    ),
)
def build_image() -> Response:
    """References are pinned to the versions that they mean now. The Activity's result names the image."""
    here = context()
    wanted = read_body(BuildImage, limit_bytes=MAX_LIST_BODY_BYTES)
    check_scope("images", wanted.name)
    for model in wanted.models:
        check_scope("models", model)
    if wanted.environment is not None:
        check_scope("environments", wanted.environment)
    for base in (wanted.base or "", *wanted.bases.values()):
        if base.startswith(_LOCAL_BASES) and caller().role != "owner":
            # Paths of the server's own disk: whoever owns it may name them.
            raise RoleForbids(role=caller().role, action=f"build on {base[:80]}, which lies on the server", needed="owner")

    def queue(connection: Connection) -> Response:
        now = here.clock.now()
        pinned = _resolved(connection, wanted)
        activity_id = activities.create(connection, kind="image.build", subject=wanted.name, request=pinned, now=now)
        blobs.hold_for_activity(connection, activity_id, [entry.digest for entry in pinned.source])
        made_of = ", ".join(pinned.models)
        tell(connection, "image.build-requested", f"image/{wanted.name}", activity=activity_id, models=made_of)
        return answer(activities.get(connection, activity_id), 202)

    answered = write_once(queue)
    here.wakeups.wake("controller")
    return answered


@operation(
    "List image versions, newest first",
    "reader",
    scope="images",
    result=Page[ImageRecord],
    query=_FILTERS,
    errors=(InvalidFilter,),
)
def list_images() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = images.newest(connection, limit, after, wanted=_wanted(connection))
    return answer(Page(items=found, next=following))


def _wanted(connection: Connection) -> Wanted:
    model = arguments.text("model")
    return Wanted(
        name=arguments.text("name"),
        kind=cast("ImageKind | None", arguments.text("kind")),
        digest=arguments.digest("digest"),
        model=None if model is None else _model(connection, Reference.parse(model)),
        tags=tuple(arguments.texts("tag")),
    )


def _model(connection: Connection, reference: Reference) -> Reference:
    if reference.alias is None and reference.digest is None:
        return reference
    # What an alias or a digest means is known to those only who may look at the model.
    check_scope("models", reference.name)
    found = models.get(connection, reference)
    return Reference(found.name, found.version)


@operation("Show an image version", "reader", scope="images", result=ImageRecord, errors=(RecordDeleted,))
def show_image(reference: str) -> Response:
    with context().database.read() as connection:
        record = images.get(connection, Reference.parse(reference))
    return answer_tagged(record, str(record.revision))


@operation(
    "Change an image's tags",
    "contributor",
    scope="images",
    body=ChangeImage,
    result=ImageRecord,
    errors=(RecordDeleted, PreconditionFailed),
)
def change_image(reference: str) -> Response:
    """Tags are set, or taken away with null."""
    named, wanted = Reference.parse(reference), read_body(ChangeImage)

    def change(connection: Connection) -> Response:
        held = images.lock(connection, named)
        check_match("Image", f"{held.name}:{held.version}", str(held.revision))
        changed = images.change_tags(connection, held, wanted.tags)
        if changed.revision != held.revision:
            _tell(connection, "image.changed", changed, changed="tags", revision=str(changed.revision))
        return answer_tagged(changed, str(changed.revision))

    return write_once(change)


@operation(
    "Delete an image version",
    "contributor",
    scope="images",
    query=(FORCE,),
    errors=(RecordDeleted, InUse, PreconditionFailed),
)
def delete_image(reference: str) -> Response:
    """Refused while a deployment, a device or an edge deployment uses it; its number is never used again.

    ``force`` leaves a record that it was there, for lineage and for what uses it, and frees its content.
    """
    named, forced = Reference.parse(reference), is_forced()

    def remove(connection: Connection) -> Response:
        standing = images.lock(connection, named)
        check_match("Image", f"{standing.name}:{standing.version}", str(standing.revision))
        exact = Reference(standing.name, standing.version)
        users: list[str] = []
        if forced:
            users = images.force_delete(connection, exact, actor(), context().clock.now()).users
        else:
            images.delete_version(connection, exact)
        tell_deleted(connection, "image", exact, standing.digest, users)
        return no_content()

    answered = write_once(remove)
    # What ran it is to be looked at: a manifest that names it can no longer be composed.
    context().wakeups.wake("hub")
    return answered


def _tell(connection: Connection, kind: str, record: ImageRecord, **details: str) -> None:
    tell(connection, kind, f"image/{record.name}:{record.version}", **details)


def _check_stages(wanted: BuildImage) -> None:
    """Raises BuildRefused; the packager has the rest to say (packager/stages.py)."""
    if wanted.kind == "fpga" and len(wanted.stages) != len(wanted.models):
        raise BuildRefused(name=wanted.name, problem="an image of kind fpga needs a stage for each of its models")
    if wanted.kind != "fpga" and wanted.stages:
        raise BuildRefused(name=wanted.name, problem=f"only an image of kind fpga has stages, this one is of kind {wanted.kind}")


def _resolved(connection: Connection, wanted: BuildImage) -> BuildImage:
    """The request with every reference pinned to the version that it means now; mistakes are refused at once.

    Raises RecordNotFound, RecordDeleted, InvalidReference, BlobMissing, FilesCollide, BuildRefused, UnsupportedPlatform,
    PlatformRepeated.
    """
    if wanted.kind != "docker" and (wanted.script or wanted.base or wanted.bases):
        raise BuildRefused(name=wanted.name, problem=f"an image of kind {wanted.kind} holds models only, no script and no base")
    normal_platforms(wanted.platforms)
    normal_platforms(wanted.bases)
    references = [Reference.parse(text) for text in wanted.models]
    if len({reference.name for reference in references}) < len(references):
        raise BuildRefused(name=wanted.name, problem="one model is given twice; an image serves one version of a name")
    found = [models.hold(connection, reference) for reference in references]
    models.check_paths(wanted.source)
    blobs.require(connection, wanted.source)
    if wanted.script is not None and wanted.script not in {entry.path for entry in wanted.source}:
        raise BuildRefused(name=wanted.name, problem=f"its source has no file {wanted.script}")
    environment = wanted.environment
    if environment is not None:
        resolved = environments.hold(connection, Reference.parse(environment))
        environment = f"{resolved.name}:{resolved.version}"
    _check_stages(wanted)
    for manifest in found:
        if wanted.kind == "onnx" and conversions.needs_conversion(manifest):
            # The build registers its conversion.
            check_scope("models", conversions.converted_name(manifest.name))
    pinned = [f"{manifest.name}:{manifest.version}" for manifest in found]
    return msgspec.structs.replace(wanted, models=pinned, environment=environment)
