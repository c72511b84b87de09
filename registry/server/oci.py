"""``/v2/``: the pull half of the OCI distribution API, so that any container tool and every device can fetch images.

A repository is an image's name, a tag is its version (``latest``: the newest). A device may fetch only what its own
desired state names; the hub writes that down in ``desired_images``.
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, request
from sqlalchemy import Connection

from hedgerow.contracts.api import Role
from hedgerow.contracts.names import MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST, check_name, is_digest
from registry.errors import BlobUnknown, RecordNotFound
from registry.server.content import send_blob
from registry.server.errors import InvalidArgument, ManifestUnknown
from registry.server.http import caller, context, needs
from registry.store import images

_MANIFESTS = frozenset({MEDIA_OCI_MANIFEST, MEDIA_OCI_INDEX})
_PULLERS: tuple[Role, ...] = ("reader", "puller", "device")
_MOST_TAGS = 1000


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("oci", __name__, url_prefix="/v2")
    blueprint.get("/")(show_version)
    blueprint.get("/<name>/tags/list")(list_tags)
    blueprint.get("/<name>/manifests/<reference>")(get_manifest)
    blueprint.get("/<name>/blobs/<digest>")(get_blob)
    return blueprint


@needs(*_PULLERS)
def show_version() -> Response:
    """Where every client begins, to learn that this is a registry and that its credential is good."""
    return Response("{}", mimetype="application/json", headers={"Docker-Distribution-API-Version": "registry/2.0"})


@needs(*_PULLERS)
def list_tags(name: str) -> Response:
    """Tags in lexical order, as the specification wants, in pages of ``?n=`` after ``?last=``."""
    check_name(name, "image")
    with context().database.read() as connection:
        tags = sorted(str(version) for version in images.versions_of(connection, name, device_uuid=_device()))
    if not tags:
        raise RecordNotFound(kind="image", name=name, command="image")
    count, last = _count(), request.args.get("last", "")
    rest = [tag for tag in tags if tag > last]
    response = Response(msgspec.json.encode({"name": name, "tags": rest[:count]}), mimetype="application/json")
    if len(rest) > count > 0:
        response.headers["Link"] = f'</v2/{name}/tags/list?n={count}&last={rest[count - 1]}>; rel="next"'
    return response


@needs(*_PULLERS)
def get_manifest(name: str, reference: str) -> Response:
    check_name(name, "image")
    with context().database.read() as connection:
        digest = reference if is_digest(reference) else _digest_of_tag(connection, name, reference)
        found = images.find_blob(connection, name, digest, device_uuid=_device())
    if found is None or found.media_type not in _MANIFESTS:
        raise ManifestUnknown(name=name, reference=reference[:80])
    response = send_blob(context().blobs, digest, found.media_type)
    response.headers["Docker-Content-Digest"] = digest
    return response


@needs(*_PULLERS)
def get_blob(name: str, digest: str) -> Response:
    check_name(name, "image")
    with context().database.read() as connection:
        found = images.find_blob(connection, name, digest, device_uuid=_device()) if is_digest(digest) else None
    if found is None:
        raise BlobUnknown(digest=digest[:80])
    response = send_blob(context().blobs, digest)
    response.headers["Docker-Content-Digest"] = digest
    return response


def _device() -> str | None:
    """The device that asks, None for everybody who may pull anything."""
    who = caller()
    return who.subject if who.role == "device" else None


def _digest_of_tag(connection: Connection, name: str, tag: str) -> str:
    versions = images.versions_of(connection, name, device_uuid=_device())
    for version in versions:
        if tag == str(version) or (tag == "latest" and version == versions[-1]):
            return images.digest_of(connection, name, version)
    raise ManifestUnknown(name=name, reference=tag[:80])


def _count() -> int:
    text = request.args.get("n", str(_MOST_TAGS))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidArgument(name="n", value=text[:80], hint="Use a number.")
    return min(int(text), _MOST_TAGS)
