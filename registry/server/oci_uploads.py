"""``/v2/NAME/blobs/uploads/``: the push half of the OCI distribution API for content, whole, in chunks, or from next door.

Bodies go to the disk as they arrive. A finished upload is checked against its digest, stored, and belongs to the
repository for as long as its lease; a manifest that names it makes it an image's (``oci_push.py``).
"""

from __future__ import annotations

import re
from datetime import timedelta

from flask import Blueprint, Response, request

from hedgerow.contracts.names import check_known_name, check_name, is_digest
from registry.blobs import Staged
from registry.blobs.errors import DigestMismatch
from registry.server import oci_grants, scopes
from registry.server.errors import DigestRefused, MalformedRequest, UploadOutOfOrder
from registry.server.http import BodyStream, caller, context, needs, tell
from registry.server.push_files import OpenUpload, push_files
from registry.server.threads import budget
from registry.store import blobs, images, pushes
from registry.store.pushes import Pushed

# The specification has it without a unit; some clients send it as HTTP does.
_CHUNK = re.compile(r"(?:bytes )?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?\Z")


def add_routes(blueprint: Blueprint) -> None:
    """To the blueprint of ``/v2``."""
    blueprint.post("/<name>/blobs/uploads/")(begin_upload)
    blueprint.get("/<name>/blobs/uploads/<upload>")(show_upload)
    blueprint.patch("/<name>/blobs/uploads/<upload>")(add_to_upload)
    blueprint.put("/<name>/blobs/uploads/<upload>")(finish_upload)
    blueprint.delete("/<name>/blobs/uploads/<upload>")(cancel_upload)


@needs("contributor", scope="images")
def begin_upload(name: str) -> Response:
    """A new upload; with ``?digest=`` all of it in this body; with ``?mount=&from=`` none, when it is there already."""
    _check_repository(name)
    if "digest" in request.args:
        return _take_whole(name, _digest_asked())
    mounted = _mount(name, request.args.get("mount", ""), request.args.get("from", ""))
    if mounted is not None:
        return mounted
    return _going_on(name, push_files().begin(name, caller().token_id, context().clock.now()), 0, 202)


@needs("contributor", scope="images")
def show_upload(name: str, upload: str) -> Response:
    """How far it is."""
    check_known_name(name, "image")
    return _going_on(name, upload, push_files().size(name, upload), 204)


@needs("contributor", scope="images")
def add_to_upload(name: str, upload: str) -> Response:
    """A chunk; with a Content-Range it must go on where the upload ends, without one it does."""
    check_known_name(name, "image")
    with push_files().writing(name, upload) as file:
        return _going_on(name, upload, _append(name, upload, file), 202)


@needs("contributor", scope="images")
def finish_upload(name: str, upload: str) -> Response:
    """The last chunk, if any, and the digest of it all. With a wrong digest the upload ends, and nothing is stored."""
    check_known_name(name, "image")
    digest, here = _digest_asked(), context()
    with push_files().writing(name, upload) as file:
        done = budget().take_transfer(_append(name, upload, file))
        file.close()
        try:
            with here.blobs.adopt(file.path, digest) as staged:
                record_pushed(name, staged)
        except DigestMismatch:
            file.remove()
            raise
        finally:
            done()
        file.remove()
    return stored_answer(name, "blobs", digest)


@needs("contributor", scope="images")
def cancel_upload(name: str, upload: str) -> Response:
    check_known_name(name, "image")
    with push_files().writing(name, upload) as file:
        file.remove()
    return Response(status=204)


def record_pushed(name: str, staged: Staged, media_type: str = "") -> None:
    """Make stored content the repository's, in a transaction of its own."""
    here = context()
    with here.database.write() as connection:
        now = here.clock.now()
        pushes.forget_expired(connection, now)
        until = blobs.record_staged(connection, staged, now, lease_s=here.settings.blob_lease_s)
        pushes.note(connection, name, Pushed(staged.digest, media_type), until)
        tell(connection, "blob.stored", f"blob/{staged.digest}", size_bytes=str(staged.size_bytes), repository=name)


def stored_answer(name: str, kind: str, digest: str, reference: str | None = None) -> Response:
    """201 with where it is: ``kind`` "blobs" or "manifests"."""
    location = f"/v2/{name}/{kind}/{reference or digest}"
    return Response(status=201, headers={"Location": location, "Docker-Content-Digest": digest})


def _check_repository(name: str) -> None:
    """A name that is new follows today's rule; one that an image has is known. Raises InvalidName."""
    check_known_name(name, "image")
    with context().database.read() as connection:
        if not images.versions_of(connection, name):
            check_name(name, "image")


def _take_whole(name: str, digest: str) -> Response:
    done = budget().take_transfer(request.content_length)
    try:
        with context().blobs.stage(BodyStream(), digest) as staged:
            record_pushed(name, staged)
    finally:
        done()
    return stored_answer(name, "blobs", digest)


def _mount(name: str, digest: str, source: str) -> Response | None:
    """None where it cannot be: then the client uploads, and learns nothing of what others have."""
    who, here = caller(), context()
    may_read = not who.scopes or scopes.allows(who.scopes, "images", source)
    if not (is_digest(digest) and source and may_read and oci_grants.may_pull(who, source)):
        return None
    with here.database.write() as connection:
        now = here.clock.now()
        lease_s = here.settings.blob_lease_s
        size = pushes.hold(connection, source, [digest], now, lease_s).get(digest)
        if size is None:
            return None
        pushes.note(connection, name, Pushed(digest, ""), now + timedelta(seconds=lease_s))
        details = {"size_bytes": str(size), "repository": name, "mounted_from": source}
        tell(connection, "blob.stored", f"blob/{digest}", **details)
    return stored_answer(name, "blobs", digest)


def _append(name: str, upload: str, file: OpenUpload) -> int:
    """The body, at the end of ``file``; its new size. Raises UploadOutOfOrder, MalformedRequest, StorageUnavailable."""
    size, announced = file.size, request.headers.get("Content-Range")
    most_bytes = None
    if announced is not None:
        chunk = _CHUNK.match(announced)
        first, last = (int(chunk[1]), int(chunk[2])) if chunk else (-1, -1)
        if first != size or last < first:
            fields = {"range": _range(size), "location": _address(name, upload)}
            raise UploadOutOfOrder(size=size, value=announced[:80], **fields)
        most_bytes = last - first + 1
    done = budget().take_transfer(request.content_length)
    try:
        ends = file.append(BodyStream(), most_bytes)
    finally:
        done()
    if most_bytes is not None and ends - size < most_bytes:
        raise MalformedRequest(problem="its body is shorter than its Content-Range")
    return ends


def _digest_asked() -> str:
    digest = request.args.get("digest", "")
    if not is_digest(digest):
        raise DigestRefused(value=digest[:80], problem="it is no sha256 digest")
    return digest


def _going_on(name: str, upload: str, size: int, status: int) -> Response:
    headers = {"Location": _address(name, upload), "Range": _range(size), "Docker-Upload-UUID": upload}
    return Response(status=status, headers=headers)


def _address(name: str, upload: str) -> str:
    return f"/v2/{name}/blobs/uploads/{upload}"


def _range(size: int) -> str:
    return f"0-{max(0, size - 1)}"
