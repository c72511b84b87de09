"""``/v2/models/NAME/``: model versions as OCI artifacts, so that any OCI tool can fetch a model.

A tag is a version's number, an alias, or ``latest``. The artifact's two documents are written when a version is first
asked for; its layers are the model's own files, nothing is copied.
"""

from __future__ import annotations

import io

from flask import Blueprint, Response

from hedgerow.contracts.api import Role
from hedgerow.contracts.model import ModelManifest
from hedgerow.contracts.names import MEDIA_OCI_MANIFEST, check_known_name, is_digest
from hedgerow.errors import InvalidName
from registry.blobs.errors import BlobUnknown
from registry.errors import RecordNotFound
from registry.model_pack import pack
from registry.server.errors import ModelManifestUnknown
from registry.server.http import context, needs
from registry.server.oci_answers import content_answer, referrers_answer, tags_answer
from registry.store import blobs, model_packs, models
from registry.store.model_packs import StoredPack

_PULLERS: tuple[Role, ...] = ("reader", "puller")


def add_routes(blueprint: Blueprint) -> None:
    """To the blueprint of ``/v2``."""
    blueprint.get("/models/<name>/tags/list")(list_model_tags)
    blueprint.get("/models/<name>/manifests/<tag>")(get_model_manifest)
    blueprint.get("/models/<name>/blobs/<digest>")(get_model_blob)
    blueprint.get("/models/<name>/referrers/<digest>")(list_model_referrers)


@needs(*_PULLERS, scope="models")
def list_model_tags(name: str) -> Response:
    return tags_answer(f"models/{name}", _tags(name))


@needs(*_PULLERS, scope="models")
def get_model_manifest(name: str, tag: str) -> Response:
    check_known_name(name, "model")
    digest = tag if is_digest(tag) else _artifact(name, tag).manifest_digest
    with context().database.read() as connection:
        if not model_packs.is_manifest(connection, name, digest):
            raise ModelManifestUnknown(name=name, reference=tag[:80])
    return content_answer(digest, MEDIA_OCI_MANIFEST)


@needs(*_PULLERS, scope="models")
def get_model_blob(name: str, digest: str) -> Response:
    check_known_name(name, "model")
    with context().database.read() as connection:
        if not (is_digest(digest) and model_packs.has_blob(connection, name, digest)):
            raise BlobUnknown(digest=digest[:80])
    return content_answer(digest)


@needs(*_PULLERS, scope="models")
def list_model_referrers(name: str, digest: str) -> Response:
    _tags(name)
    return referrers_answer(digest)


def _tags(name: str) -> list[str]:
    check_known_name(name, "model")
    with context().database.read() as connection:
        tags = model_packs.tags_of(connection, name)
    if not tags:
        raise RecordNotFound(kind="model", name=name, command="model")
    return tags


def _artifact(name: str, tag: str) -> StoredPack:
    """The artifact that ``tag`` names, written now if nobody asked for it before. Raises ModelManifestUnknown, PackTooLarge."""
    reference = model_packs.reference_of(name, tag)
    try:
        if reference is None:
            raise RecordNotFound(kind="model", name=name, command="model")
        with context().database.read() as connection:
            model = models.get(connection, reference)
            stored = model_packs.of_version(connection, model.name, model.version)
        return stored or _written(model)
    except (RecordNotFound, InvalidName):
        raise ModelManifestUnknown(name=name, reference=tag[:80]) from None


def _written(model: ModelManifest) -> StoredPack:
    here, made = context(), pack(model)
    with (
        here.blobs.stage(io.BytesIO(made.config)) as config,
        here.blobs.stage(io.BytesIO(made.manifest)) as manifest,
        here.database.write() as connection,
    ):
        now = here.clock.now()
        # In the order of their digests, so that two first pulls at once never wait for each other in a circle.
        for staged in sorted((config, manifest), key=lambda one: one.digest):
            blobs.record_staged(connection, staged, now, lease_s=0.0)
        return model_packs.keep(connection, model, StoredPack(manifest.digest, config.digest))
