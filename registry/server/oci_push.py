"""``PUT /v2/NAME/manifests/REFERENCE``: what a push makes of the content that it brought (docs/decisions/014).

Under a tag the manifest becomes an image version: the one of that number, or the next one, found again by its tag. Under its
digest it waits to be part of one (a platform of an index), or lies beside one (it has a ``subject``). Either way everything
that it names must be the repository's already. A version appears in one transaction, whole.
"""

from __future__ import annotations

import io
from datetime import datetime

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from hedgerow.contracts.image import ImageRecord, Referrer
from hedgerow.contracts.names import Reference, check_known_name, check_name
from registry.blobs import Staged
from registry.server.errors import ManifestBlobUnknown, PushedManifestInvalid
from registry.server.http import context, needs, read_content, tell
from registry.server.oci_documents import DOCUMENT_BYTES_MAX, Manifest, read_manifest
from registry.server.oci_uploads import stored_answer
from registry.server.pushed_images import Gathered, check_there, facts_of, gather, record_of
from registry.store import blobs, image_referrers, images, pushes, repository_tags
from registry.store.pushes import Pushed

_REFERRERS_MOST = 1000


def add_routes(blueprint: Blueprint) -> None:
    """To the blueprint of ``/v2``."""
    blueprint.put("/<name>/manifests/<tag>")(put_manifest)


@needs("contributor", scope="images")
def put_manifest(name: str, tag: str) -> Response:
    """201 with the digest; again the same, which then changes nothing."""
    check_known_name(name, "image")
    manifest_bytes = read_content(DOCUMENT_BYTES_MAX)
    manifest = read_manifest(manifest_bytes, request.mimetype, tag)
    by_digest = ":" in tag
    if manifest.referrer is not None and not by_digest:
        raise PushedManifestInvalid(
            problem="what refers to another manifest (its subject) is pushed by its digest, without a tag"
        )
    with context().database.read() as connection:
        found = gather(connection, name, manifest)
    with context().blobs.stage(io.BytesIO(manifest_bytes), manifest.digest) as staged:
        if by_digest:
            _keep(name, manifest, found, staged)
        else:
            _register(name, tag, manifest, found, staged)
    answered = stored_answer(name, "manifests", manifest.digest)
    if manifest.referrer is not None:
        answered.headers["OCI-Subject"] = manifest.referrer.subject
    return answered


def _keep(name: str, manifest: Manifest, found: Gathered, staged: Staged) -> None:
    """A manifest without a tag: beside the versions that have its subject, or the repository's for a lease."""
    here, referrer = context(), manifest.referrer
    with here.database.write() as connection:
        now = here.clock.now()
        if referrer is not None:
            # A version of its subject that is being pushed this moment finds it, or is found here.
            repository_tags.hold_name(connection, name)
        _hold(connection, name, found, staged, now)
        versions = [] if referrer is None else image_referrers.versions_with(connection, name, referrer.subject)
        if referrer is None or not versions:
            tell(connection, "blob.stored", f"blob/{manifest.digest}", size_bytes=str(manifest.size_bytes), repository=name)
            return
        for version in versions:
            images.lock(connection, Reference(name, version))
            there = image_referrers.of_version(connection, name, version)
            if manifest.digest in {one.digest for one in there}:
                continue
            if len(there) >= _REFERRERS_MOST:
                raise PushedManifestInvalid(problem=f"{name}:{version} has {_REFERRERS_MOST} referrers, and takes no more")
            image_referrers.add_with_blobs(connection, name, version, referrer, found.parts.items())
            details = {"digest": manifest.digest, "artifact_type": manifest.artifact_type[:200]}
            tell(connection, "image.referrer-pushed", f"image/{name}:{version}", **details)


def _register(name: str, tag: str, manifest: Manifest, found: Gathered, staged: Staged) -> None:
    """The image version that ``tag`` stands for from now on; nothing when it does already."""
    here = context()
    facts = facts_of(manifest, found)
    with here.database.read() as connection:
        early = _beside(connection, name, found, {})
    with here.database.write() as connection:
        now = here.clock.now()
        place = repository_tags.place_for(connection, name, tag, manifest.digest)
        _hold(connection, name, found, staged, now)
        if place.is_there:
            return
        if place.is_new_name:
            check_name(name, "image")
        record = record_of(name, place.version, manifest, facts, place.tags, now)
        parts, referrers = dict(found.parts), list[Referrer]()
        for one in _beside(connection, name, found, early).values():
            held = pushes.hold(connection, name, one.parts, now, here.settings.blob_lease_s)
            if one.top.referrer is not None and held.keys() == one.parts.keys():
                parts |= one.parts
                referrers.append(one.top.referrer)
        images.insert(connection, record, parts.items(), referrers)
        _tell_pushed(connection, record, tag)


def _hold(connection: Connection, name: str, found: Gathered, staged: Staged, now: datetime) -> None:
    """Everything that the manifest leads to stays, and the manifest itself is the repository's. Raises ManifestBlobUnknown."""
    lease_s, manifest = context().settings.blob_lease_s, found.top
    pushes.forget_expired(connection, now)
    check_there(name, found, pushes.hold(connection, name, found.sizes, now, lease_s))
    until = blobs.record_staged(connection, staged, now, lease_s=lease_s)
    pushes.note(connection, name, Pushed(manifest.digest, manifest.media_type, manifest.referrer), until)


def _beside(connection: Connection, name: str, found: Gathered, known: dict[str, Gathered]) -> dict[str, Gathered]:
    """What refers to the image, or to what refers to it, with all that it leads to: it came before, or for another version."""
    now, beside = context().clock.now(), dict[str, Gathered]()
    subjects = [found.top.digest, *found.manifests]
    while subjects and len(beside) < _REFERRERS_MOST:
        subject = subjects.pop()
        early = pushes.waiting_for(connection, name, subject, now)
        for referrer in (*image_referrers.of_subject(connection, name, subject), *early):
            if referrer.digest in beside or len(beside) >= _REFERRERS_MOST:
                continue
            try:
                one = known.get(referrer.digest) or gather(connection, name, found.read(referrer.digest, referrer.media_type))
            except (ManifestBlobUnknown, PushedManifestInvalid):
                continue  # its lease ended in parts: it is nobody's any more
            beside[referrer.digest] = one
            subjects.append(referrer.digest)
    return beside


def _tell_pushed(connection: Connection, record: ImageRecord, tag: str) -> None:
    details = {"digest": record.digest, "tag": tag, "image_kind": record.kind}
    tell(connection, "image.pushed", f"image/{record.name}:{record.version}", **details)
