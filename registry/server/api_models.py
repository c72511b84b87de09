"""``/api/v1/models``: register, find, read, change and delete model versions. Aliases: ``api_model_aliases.py``."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec
from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import ChangeModel, Page, RegisterModel
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.names import Reference
from registry.blobs import Staged
from registry.blobs.errors import BlobMissing, BlobSizeWrong, DigestMismatch
from registry.blobs.many import staged_together
from registry.errors import (
    AliasProtected,
    AliasReserved,
    FilesCollide,
    InUse,
    MlmodelInvalid,
    PreconditionFailed,
    PropertyFixed,
    RecordDeleted,
    RecordNotFound,
    RegistrationRefused,
    TooManyLabels,
)
from registry.mlmodel import MlmodelReading, read_mlmodel
from registry.server import arguments
from registry.server.content import send_blob
from registry.server.errors import DocumentTooLarge, InvalidArgument
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
from registry.server.scopes import check_run
from registry.store import blobs, model_deletion, models
from registry.store.model_search import Label, ModelQuery
from registry.store.model_words import parse_words

# What may travel inside a registration; larger content has a path of its own, with leases and checks on the way.
MAX_INLINE_BYTES = 1024 * 1024
MOST_FILTERS = 20

_FILTERS = (
    *PAGE,
    QueryField("name", "only versions of this model; with a star at the end, of models whose names begin so"),
    QueryField("tag", "KEY=VALUE: only with this tag; KEY: only with a tag of this key", repeated=True),
    QueryField("property", "KEY=VALUE or KEY, as for tags", repeated=True),
    QueryField("framework", "only of this framework"),
    QueryField("q", "words that must all occur in name, framework, tags or description; a star at the end of one: begins so"),
    QueryField("since", "registered at this time or later", "instant"),
    QueryField("until", "registered before this time", "instant"),
    QueryField("run", "only what this run made"),
    QueryField("digest", "only with this content"),
    QueryField("data", "only what was made from the data set with this digest"),
    QueryField("alias", "only versions that this alias names"),
    QueryField("newest", "of each name only the newest version", "boolean"),
)


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("models", __name__, url_prefix="/api/v1/models")
    blueprint.post("")(register_model)
    blueprint.get("")(list_models)
    blueprint.get("/<reference>")(show_model)
    blueprint.patch("/<reference>")(change_model)
    blueprint.delete("/<reference>")(delete_model)
    blueprint.get("/<reference>/files/<path:path>")(get_model_file)
    blueprint.get("/<reference>/sample-input")(get_sample_input)
    return blueprint


# --- registration -------------------------------------------------------------------------------------------------------


@operation(
    "Register a model version",
    "contributor",
    scope="models",
    body=RegisterModel,
    result=ModelManifest,
    status=201,
    errors=(
        RecordNotFound,
        BlobMissing,
        BlobSizeWrong,
        DigestMismatch,
        FilesCollide,
        MlmodelInvalid,
        RegistrationRefused,
        TooManyLabels,
        AliasReserved,
        AliasProtected,
        DocumentTooLarge,
    ),
)
def register_model() -> Response:
    """The next version of the name. A folder of MLflow's (``MLmodel`` at its top) fills in what the request leaves out."""
    wanted = read_body(RegisterModel, limit_bytes=MAX_LIST_BODY_BYTES)
    check_scope("models", wanted.name)
    if wanted.run_id is not None:
        check_run(context(), caller(), wanted.run_id)
    with ExitStack() as kept:
        staged = _stage(wanted, kept)
        reading = read_mlmodel(wanted.files, context().blobs)
        request = _filled_in(wanted, reading)

        def register(connection: Connection) -> Response:
            now = context().clock.now()
            for content in staged:
                blobs.record_staged(connection, content, now, lease_s=0.0)
            manifest = models.register(
                connection,
                request,
                now,
                actor=actor(),
                mlflow=reading.mlflow if reading else None,
                environment=reading.environment if reading else None,
            )
            _tell(connection, "model.registered", manifest, digest=manifest.digest)
            return answer_tagged(manifest, str(manifest.revision), 201)

        return write_once(register)


def _stage(wanted: RegisterModel, kept: ExitStack) -> list[Staged]:
    """Store the inline content, in the order of digests. Raises DocumentTooLarge, RegistrationRefused, DigestMismatch."""
    if sum(map(len, wanted.inline.values())) > MAX_INLINE_BYTES:
        raise DocumentTooLarge(limit_bytes=MAX_INLINE_BYTES)
    named = {entry.digest for entry in [*wanted.files, *([wanted.sample_input] if wanted.sample_input else [])]}
    if foreign := sorted(wanted.inline.keys() - named):
        raise RegistrationRefused(name=wanted.name, problem=f"none of its files has the content {foreign[0]} that is inline")
    store = context().blobs
    return kept.enter_context(staged_together(store, list(wanted.inline.items())))


def _filled_in(wanted: RegisterModel, reading: MlmodelReading | None) -> RegisterModel:
    """What the request says wins over what the MLmodel file says."""
    if reading is None:
        return wanted
    framework = reading.framework if wanted.framework == "custom" else wanted.framework
    same = framework == reading.framework
    return msgspec.structs.replace(
        wanted,
        framework=framework,
        framework_version=wanted.framework_version or (reading.framework_version if same else None),
        inputs=wanted.inputs or reading.inputs,
        outputs=wanted.outputs or reading.outputs,
    )


# --- reading ------------------------------------------------------------------------------------------------------------


@operation("List model versions, newest first", "reader", scope="models", result=Page[ModelManifest], query=_FILTERS)
def list_models() -> Response:
    limit, after = page_arguments()
    query = _query()
    with context().database.read() as connection:
        found, following = models.find_documents(connection, query, limit, after)
    return answer(Page(items=found, next=following))


def _query() -> ModelQuery:
    tags, properties = _labels("tag"), _labels("property")
    text = arguments.text("q")
    words = tuple(parse_words(text or ""))
    if text is not None and not words:
        raise InvalidArgument(name="q", value=text[:80], hint="Write one word or several, of letters and digits.")
    if len(words) + len(tags) + len(properties) > MOST_FILTERS:
        hint = f"Use at most {MOST_FILTERS} words, tags and properties at once."
        raise InvalidArgument(name="q" if words else "tag", value=(text or "")[:80], hint=hint)
    return ModelQuery(
        name=arguments.text("name"),
        tags=tags,
        properties=properties,
        framework=arguments.text("framework"),
        words=words,
        since=arguments.instant("since"),
        until=arguments.instant("until"),
        run_id=arguments.text("run"),
        digest=arguments.digest("digest"),
        data_digest=arguments.digest("data"),
        alias=arguments.text("alias"),
        newest_only=arguments.flag("newest"),
    )


def _labels(name: str) -> tuple[Label, ...]:
    """``KEY=VALUE`` or ``KEY``, any number of times. Raises InvalidArgument."""
    pairs = [(text, *text.partition("=")) for text in arguments.texts(name)]
    for text, key, _, _ in pairs:
        if not key:
            raise InvalidArgument(name=name, value=text[:80], hint=f"Write {name}=KEY=VALUE, or {name}=KEY for any value.")
    return tuple(Label(key, value if equals else None) for _, key, equals, value in pairs)


@operation("Show a model version", "reader", scope="models", result=ModelManifest, errors=(RecordDeleted,))
def show_model(reference: str) -> Response:
    with context().database.read() as connection:
        manifest = models.get(connection, Reference.parse(reference))
    return answer_tagged(manifest, str(manifest.revision))


@operation("Read a file of a model", "reader", scope="models", result="application/octet-stream", errors=(RecordDeleted,))
def get_model_file(reference: str, path: str) -> Response:
    here = context()
    with here.database.read() as connection:
        manifest = models.get(connection, Reference.parse(reference))
    for entry in manifest.files:
        if entry.path == path:
            return send_blob(here.blobs, entry.digest, name=path)
    raise RecordNotFound(kind="file", name=f"{path[:200]} in {manifest.name}:{manifest.version}", command="model")


@operation("Read a model's sample input", "reader", scope="models", result="application/octet-stream", errors=(RecordDeleted,))
def get_sample_input(reference: str) -> Response:
    here = context()
    with here.database.read() as connection:
        manifest = models.get(connection, Reference.parse(reference))
    sample = manifest.sample_input
    if sample is None:
        raise RecordNotFound(kind="sample input", name=f"of {manifest.name}:{manifest.version}", command="model")
    return send_blob(here.blobs, sample.digest, name=sample.path)


# --- changing and deleting ----------------------------------------------------------------------------------------------


@operation(
    "Change tags, properties and description",
    "contributor",
    scope="models",
    body=ChangeModel,
    result=ModelManifest,
    errors=(RecordDeleted, PropertyFixed, TooManyLabels, PreconditionFailed),
)
def change_model(reference: str) -> Response:
    """Tags are set, or taken away with null; properties are only ever added."""
    named, wanted = Reference.parse(reference), read_body(ChangeModel)

    def change(connection: Connection) -> Response:
        held = models.lock(connection, named)
        check_match("Model", f"{held.name}:{held.version}", str(held.revision))
        changed = models.change(connection, held, wanted)
        if changed.revision != held.revision:
            what = ", ".join(
                field for field in ("description", "properties", "tags") if getattr(changed, field) != getattr(held, field)
            )
            _tell(connection, "model.changed", changed, changed=what, revision=str(changed.revision))
        return answer_tagged(changed, str(changed.revision))

    return write_once(change)


@operation(
    "Delete a model version",
    "contributor",
    scope="models",
    query=(FORCE,),
    errors=(RecordDeleted, InUse, PreconditionFailed),
)
def delete_model(reference: str) -> Response:
    """Refused while an image is made of it, a model was converted from it, an alias names it, or a build or a conversion is
    to take it in; its number is never used again.

    ``force`` leaves a record that it was there, for lineage, and frees its files.
    """
    named, forced = Reference.parse(reference), is_forced()

    def remove(connection: Connection) -> Response:
        standing = models.lock(connection, named)
        check_match("Model", f"{standing.name}:{standing.version}", str(standing.revision))
        exact = Reference(standing.name, standing.version)
        users: list[str] = []
        if forced:
            users = model_deletion.force_delete(connection, exact, actor(), context().clock.now()).users
        else:
            model_deletion.delete_version(connection, exact, actor(), context().clock.now())
        tell_deleted(connection, "model", exact, standing.digest, users)
        return no_content()

    return write_once(remove)


def _tell(connection: Connection, kind: str, manifest: ModelManifest, **details: str) -> None:
    tell(connection, kind, f"model/{manifest.name}:{manifest.version}", **details)
