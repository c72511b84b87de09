"""``/v2/``: the OCI distribution API, so that any container tool and every device can fetch images, and tools push them.

A repository is an image's name, a tag is its version (``latest``: the newest) or what it was pushed as. The push half is in
``oci_uploads.py`` and ``oci_push.py``, the token flow in ``oci_tokens.py``. A device may fetch only what its own
desired state names; the hub writes that down in ``desired_images``. Models are below ``/v2/models/`` (``oci_models.py``):
an image's repository has one segment, a model's two, so an image called "models" is in nobody's way.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import Role
from hedgerow.contracts.names import INDEX_TYPES, MANIFEST_TYPES, check_known_name, is_digest
from registry.blobs.errors import BlobUnknown
from registry.errors import RecordNotFound
from registry.server import oci_models, oci_push, oci_uploads
from registry.server.errors import ManifestUnknown
from registry.server.http import caller, context, needs
from registry.server.oci_answers import content_answer, page_asked, referrers_answer, tags_answer
from registry.server.oci_documents import is_tag
from registry.server.oci_tokens import give_token
from registry.server.scopes import OPEN
from registry.store import image_referrers, images, oci_repositories, pushes, repository_tags
from registry.store.images import ImageBlob

_PULLERS: tuple[Role, ...] = ("reader", "puller", "device")


def routes() -> Blueprint:
    """The routes of this module, and those of models."""
    blueprint = Blueprint("oci", __name__, url_prefix="/v2")
    blueprint.get("/")(show_version)
    blueprint.get("/_catalog")(list_repositories)
    # A scope is checked against `name`, so no other part of an address is called so.
    blueprint.get("/<name>/tags/list")(list_tags)
    blueprint.get("/<name>/manifests/<tag>")(get_manifest)
    blueprint.get("/<name>/blobs/<digest>")(get_blob)
    blueprint.get("/<name>/referrers/<digest>")(list_referrers)
    blueprint.get("/token")(give_token)
    oci_uploads.add_routes(blueprint)
    oci_push.add_routes(blueprint)
    oci_models.add_routes(blueprint)
    return blueprint


@needs(*_PULLERS, scope=OPEN)
def show_version() -> Response:
    """Where every client begins, to learn that this is a registry and that its credential is good."""
    return Response("{}", mimetype="application/json", headers={"Docker-Distribution-API-Version": "registry/2.0"})


@needs("reader", "puller")
def list_repositories() -> Response:
    """Images and models, in pages like those of tags; for tokens without scopes, since it names everything."""
    count, last = page_asked()
    with context().database.read() as connection:
        found = oci_repositories.after(connection, last, count + 1)
    response = Response(msgspec.json.encode({"repositories": found[:count]}), mimetype="application/json")
    if len(found) > count > 0:
        response.headers["Link"] = f'</v2/_catalog?n={count}&last={quote(found[count - 1], safe="")}>; rel="next"'
    return response


@needs(*_PULLERS, scope="images")
def list_tags(name: str) -> Response:
    return tags_answer(name, _tags(name))


@needs(*_PULLERS, scope="images")
def get_manifest(name: str, tag: str) -> Response:
    check_known_name(name, "image")
    with context().database.read() as connection:
        digest = tag if is_digest(tag) else _digest_of_tag(connection, name, tag)
        found = _find(connection, name, digest)
    if found is None or found.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        raise ManifestUnknown(name=name, reference=tag[:80])
    return content_answer(digest, found.media_type)


@needs(*_PULLERS, scope="images")
def get_blob(name: str, digest: str) -> Response:
    check_known_name(name, "image")
    with context().database.read() as connection:
        found = _find(connection, name, digest) if is_digest(digest) else None
    if found is None:
        raise BlobUnknown(digest=digest[:80])
    return content_answer(digest)


@needs(*_PULLERS, scope="images")
def list_referrers(name: str, digest: str) -> Response:
    """What lies beside a manifest; nothing for one that is not there, as the specification wants it."""
    check_known_name(name, "image")
    if not is_digest(digest):
        raise BlobUnknown(digest=digest[:80])
    with context().database.read() as connection:
        found = image_referrers.of_subject(connection, name, digest, device_uuid=_device())
        # What nothing is made of yet is no device's business.
        early = pushes.waiting_for(connection, name, digest, context().clock.now()) if _device() is None else []
    return referrers_answer(digest, {one.digest: one for one in (*found, *early)}.values())


def _tags(name: str) -> list[str]:
    """Raises RecordNotFound for a repository that this caller has no business with."""
    check_known_name(name, "image")
    with context().database.read() as connection:
        tags = [tag for tag in images.tags_of(connection, name, device_uuid=_device()) if is_tag(tag)]
    if not tags:
        raise RecordNotFound(kind="image", name=name, command="image")
    return tags


def _find(connection: Connection, name: str, digest: str) -> ImageBlob | None:
    """Of an image, or pushed for one. A device has no business with what is no image yet."""
    found = images.find_blob(connection, name, digest, device_uuid=_device())
    if found is None and _device() is None:
        found = pushes.find(connection, name, digest, context().clock.now())
    return found


def _device() -> str | None:
    """The device that asks, None for everybody who may pull anything."""
    who = caller()
    return who.subject if who.role == "device" else None


def _digest_of_tag(connection: Connection, name: str, tag: str) -> str:
    """Raises ManifestUnknown."""
    versions = images.versions_of(connection, name, device_uuid=_device())
    version = next((one for one in versions if tag == str(one)), None)
    if version is None and versions:
        is_latest = tag == repository_tags.LATEST
        version = versions[-1] if is_latest else images.version_tagged(connection, name, tag, device_uuid=_device())
    if version is None:
        raise ManifestUnknown(name=name, reference=tag[:80])
    return images.digest_of(connection, name, version)
