"""ETags of records that people and processes both change: ``REVISION.STATE``.

What people asked for has a revision; what a process reports beside it (replicas, presence) changes all the time. A cached
answer is good only while both are the same. A write with If-Match minds the revision alone: a replica's restart must not
void the change that somebody is about to make.
"""

from __future__ import annotations

import msgspec
from flask import Response, request

from hedgerow.contracts.document import digest_of, encode
from registry.errors import PreconditionFailed
from registry.server.http import answer_tagged

_SHORT = 12


def short_digest(document: object) -> str:
    """A few characters that change with ``document``; equal documents have equal ones."""
    return digest_of(msgspec.json.encode(document, order="sorted")).partition(":")[2][:_SHORT]


def etag_of(revision: object, document: msgspec.Struct) -> str:
    """Of a record at ``revision`` as ``document`` shows it now."""
    return f"{revision}.{digest_of(encode(document)).partition(':')[2][:_SHORT]}"


def answer_revised(document: msgspec.Struct, revision: object, status: int = 200) -> Response:
    """``document`` with its ETag; 304 when the request's If-None-Match names it."""
    return answer_tagged(document, etag_of(revision, document), status)


def answer_seen(document: msgspec.Struct) -> Response:
    """Like :func:`answer_revised` for what only processes change: there is nothing to match a write with."""
    return answer_tagged(document, short_digest(document))


def check_revision(kind: str, name: object, revision: object) -> None:
    """Raises PreconditionFailed unless If-Match, where sent, has an ETag of ``revision`` (None: there is no such record).

    ``If-None-Match: *`` asks for a record that is not there yet.
    """
    if request.if_none_match.star_tag and revision is not None:
        raise PreconditionFailed(kind=kind, name=name, found=f'"{revision}.…"', expected="none at all")
    sent = request.headers.get("If-Match")
    if sent is None or (request.if_match.star_tag and revision is not None):
        return
    # Weak tags never match (RFC 9110, 13.1.1), and werkzeug reads "" as None.
    if str(revision) not in {(etag or "").partition(".")[0] for etag in request.if_match.as_set()}:
        raise PreconditionFailed(
            kind=kind, name=name, found="none" if revision is None else f'"{revision}.…"', expected=sent[:80]
        )
