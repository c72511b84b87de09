"""What the two halves of ``/v2/`` answer alike: tags in pages, content by digest, and what refers to a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from flask import Response, request

from hedgerow.contracts.image import Referrer
from hedgerow.contracts.names import MEDIA_OCI_INDEX, is_digest
from registry.blobs.errors import BlobUnknown
from registry.server.content import send_blob
from registry.server.errors import InvalidArgument
from registry.server.http import context

_MOST_TAGS = 1000


def tags_answer(repository: str, tags: Sequence[str]) -> Response:
    """``tags`` (in lexical order, as the specification wants) in pages of ``?n=`` after ``?last=``."""
    count, last = page_asked()
    rest = [tag for tag in tags if tag > last]
    response = Response(msgspec.json.encode({"name": repository, "tags": rest[:count]}), mimetype="application/json")
    if len(rest) > count > 0:
        response.headers["Link"] = f'</v2/{repository}/tags/list?n={count}&last={rest[count - 1]}>; rel="next"'
    return response


def content_answer(digest: str, media_type: str = "application/octet-stream") -> Response:
    """The content of a blob or manifest; 304 when the request's If-None-Match names it, which its digest does."""
    if request.method in ("GET", "HEAD") and request.if_none_match.contains_weak(digest):
        response = Response(status=304)
        response.set_etag(digest)
    else:
        response = send_blob(context().blobs, digest, media_type)
    response.headers["Docker-Content-Digest"] = digest
    return response


def referrers_answer(digest: str, referrers: Iterable[Referrer] = ()) -> Response:
    """An index of what refers to ``digest``, of one kind with ``?artifactType=``. Raises BlobUnknown for what is no digest."""
    if not is_digest(digest):
        raise BlobUnknown(digest=digest[:80])
    wanted = request.args.get("artifactType")
    listed = [_descriptor(one) for one in referrers if wanted in (None, one.artifact_type)]
    body = {"schemaVersion": 2, "mediaType": MEDIA_OCI_INDEX, "manifests": listed}
    response = Response(msgspec.json.encode(body), mimetype=MEDIA_OCI_INDEX)
    if wanted is not None:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    return response


def page_asked() -> tuple[int, str]:
    """``?n=`` (at most 1000) and ``?last=``. Raises InvalidArgument."""
    text = request.args.get("n", str(_MOST_TAGS))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidArgument(name="n", value=text[:80], hint="Use a number.")
    return min(int(text), _MOST_TAGS), request.args.get("last", "")


def _descriptor(referrer: Referrer) -> dict[str, Any]:
    found: dict[str, Any] = {
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size_bytes,
        "artifactType": referrer.artifact_type,
    }
    return found | ({"annotations": referrer.annotations} if referrer.annotations else {})
