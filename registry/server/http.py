"""The words in which every API module is written: who asks, what they sent, how to answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar, cast

import msgspec
from flask import Request, Response, current_app, g, request
from gunicorn.http.errors import ParseException
from sqlalchemy import Connection

from hedgerow.contracts.api import Role
from hedgerow.contracts.document import decode, digest_of, encode
from hedgerow.contracts.events import Actor
from hedgerow.contracts.names import Reference
from hedgerow.errors import InvalidDocument
from registry.errors import PreconditionFailed, RoleForbids
from registry.server import access, arguments, oci_grants, once, scopes
from registry.server.context import Caller, ServerContext
from registry.server.errors import ConnectionStalled, ContentTypeRefused, DocumentTooLarge, MalformedRequest
from registry.store import events
from registry.wakeups import FEED

D = TypeVar("D", bound=msgspec.Struct)
P = ParamSpec("P")
R = TypeVar("R")

EXTENSION = "hedgerow"
MAX_BODY_BYTES = 1024 * 1024
# For documents with file lists: about 100 000 files.
MAX_LIST_BODY_BYTES = 16 * 1024 * 1024
# A peer that neither sends nor takes a byte for this long is gone.
SILENCE_S = 60.0
DEFAULT_PAGE, MAX_PAGE = 100, 1000
# A role may do everything that the roles below it may; "puller", "device" and "run" only what names them.
_ALSO: dict[Role, frozenset[Role]] = {
    "reader": frozenset({"reader", "contributor", "owner"}),
    "contributor": frozenset({"contributor", "owner"}),
}


def context() -> ServerContext:
    """The parts of the running app."""
    return cast(ServerContext, current_app.extensions[EXTENSION])


def caller() -> Caller:
    """Who asks; only inside a handler marked with :func:`needs`."""
    return cast(Caller, g.caller)


def needs(
    *roles: Role, scope: str = "", bearer: Callable[[ServerContext, Request], Caller] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let only these roles in (owner ⊃ contributor ⊃ reader; the others only where named).

    ``bearer``: whoever this finds in the request, whose credential is no token of a role, and nobody else.

    ``scope`` is the noun that a token's scopes must name (see ``scopes.py``); a token with scopes is refused where there
    is none. A handler that makes a record calls :func:`check_scope` with its name.

    Raises TokenMissing or TokenRefused (401), RoleForbids or ScopeForbids (403).
    """
    allowed = frozenset().union(*(_ALSO.get(role, frozenset({role})) for role in roles))

    def decorate(handler: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(handler)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            found = (bearer or access.authenticate)(context(), request)
            if bearer is None and found.role not in allowed:
                raise RoleForbids(role=found.role, action=f"{request.method} {request.path}", needed=" or ".join(roles))
            g.caller = found
            scopes.check_route(context(), found, request, scope)
            oci_grants.check_route(found, request)
            once.check_taken(request, handler)
            response = handler(*args, **kwargs)
            _spread_news()
            scopes.check_was_asked(found)
            return response

        return guarded

    return decorate


def check_scope(noun: str, name: str) -> None:
    """Every handler that makes a record calls this before its change, also for each record that it builds upon.

    ``noun`` is that of the scopes (``models``, ``images``, ``runs`` with the experiment's name, …); ``name`` a name or a
    reference. Raises ScopeForbids for a token whose scopes do not cover it.
    """
    scopes.check(caller(), noun, name)


def read_body(kind: type[D], *, limit_bytes: int = MAX_BODY_BYTES) -> D:
    """The request's JSON body as ``kind``: at most ``limit_bytes``, content type ``application/json``.

    Raises ContentTypeRefused, DocumentTooLarge, InvalidDocument.
    """
    if request.mimetype != "application/json":
        raise ContentTypeRefused(found=request.mimetype, expected="application/json")
    data = _bounded_body(limit_bytes)
    document = decode(data, kind)
    # PostgreSQL's text cannot hold NUL, and nothing that people write does.
    if rb"\u0000" in data and _holds_nul(msgspec.to_builtins(document)):
        raise InvalidDocument(document=kind.__name__, problem="it holds a NUL character")
    if once.key_of(request) is not None:
        g.body_digest = digest_of(encode(document))
    return document


def read_content(limit_bytes: int) -> bytes:
    """The request's body as it is, of whatever type. Raises DocumentTooLarge, ConnectionStalled, MalformedRequest."""
    return _bounded_body(limit_bytes)


class BodyStream:
    """The request's body, read as it arrives; whatever the other end does wrong is an error of the caller."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none at the end. Raises ConnectionStalled, MalformedRequest."""
        try:
            return request.stream.read(size)
        except TimeoutError:
            raise ConnectionStalled(timeout_s=SILENCE_S) from None
        except (OSError, ParseException):
            raise MalformedRequest(problem="its body ended early or is not chunked as announced") from None


def _bounded_body(limit_bytes: int) -> bytes:
    if (request.content_length or 0) > limit_bytes:
        raise DocumentTooLarge(limit_bytes=limit_bytes)
    stream, data = BodyStream(), bytearray()
    # A chunked body announces no length: one byte too many tells.
    while part := stream.read(min(limit_bytes + 1 - len(data), 64 * 1024)):
        data += part
        if len(data) > limit_bytes:
            raise DocumentTooLarge(limit_bytes=limit_bytes)
    return bytes(data)


def answer(document: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``document`` as canonical JSON."""
    g.holds_secret = once.holds_secret(document)
    return Response(encode(document), status, headers, mimetype="application/json")


def actor() -> Actor:
    """Who asks, as it is written into events."""
    who = caller()
    return Actor(id=who.token_id, name=who.name, role=who.role)


def tell(connection: Connection, kind: str, subject: str, **details: str) -> int:
    """Record an event in the transaction of the change: ``kind`` NOUN.VERB, ``subject`` NOUN/NAME. Returns its number."""
    g.told = subject
    return events.record(connection, kind=kind, subject=subject, actor=actor(), now=context().clock.now(), details=details)


def _spread_news() -> None:
    """After the commit: whoever follows events, here and in the controller's webhooks, looks again."""
    if "told" in g:
        for reader in (FEED, "server"):
            context().wakeups.wake(reader)


def write_once(action: Callable[[Connection], Response]) -> Response:
    """Run ``action`` in a writing transaction and answer with what it returns, after the commit.

    A request with an ``Idempotency-Key`` is done at most once for its token: its answer is kept in the same transaction,
    and given again without ``action`` (so nothing after this call may need what ``action`` found). The body must have been
    read by then. Raises IdempotencyKeyReused, AlreadyDone, ScopeForbids.
    """
    here, who, key = context(), caller(), once.key_of(request)
    with here.database.write() as connection:
        if key is None:
            response = action(connection)
        else:
            asked = once.request_digest(request, g.get("body_digest", ""))
            response = once.run(here, connection, who, key, asked, action, _secret_of)
        scopes.check_was_asked(who)
        return response


def _secret_of() -> str | None:
    """The record whose secret the answer holds, for which there is no second answer."""
    return g.get("told", "it") if g.get("holds_secret") else None


def check_match(kind: str, name: object, etag: str | None) -> None:
    """Raises PreconditionFailed when the request's If-Match does not name ``etag`` (without quotes), or its If-None-Match does.

    ``etag`` None: there is no such record yet. A weak tag never matches in If-Match (RFC 9110, 13.1.1).
    """
    wanted, unwanted = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    found = "none" if etag is None else f'"{etag}"'
    if wanted is not None and (etag is None or not request.if_match.contains(etag)):
        raise PreconditionFailed(kind=kind, name=name, found=found, expected=wanted[:80])
    if unwanted is not None and etag is not None and request.if_none_match.contains_weak(etag):
        raise PreconditionFailed(kind=kind, name=name, found=found, expected=f"anything but {unwanted[:80]}")


def answer_tagged(document: msgspec.Struct, etag: str, status: int = 200) -> Response:
    """``document`` with its ETag; 304 without a body when the request's If-None-Match names it."""
    response = answer(document, status)
    response.set_etag(etag)
    if request.method in ("GET", "HEAD"):
        response.headers["Cache-Control"] = "private, no-cache"
        response.make_conditional(request)
    return response


def no_content() -> Response:
    """204: done, nothing to say."""
    return Response(status=204)


def page_arguments() -> tuple[int, str | None]:
    """``?limit=`` (1 to 1000, 100 if absent) and ``?after=`` (the ``next`` of the page before)."""
    return arguments.integer("limit") or DEFAULT_PAGE, arguments.text("after")


def is_forced() -> bool:
    """``?force=true`` of a deletion. Raises RoleForbids for everybody but owners."""
    forced = arguments.flag("force")
    if forced and caller().role != "owner":
        raise RoleForbids(role=caller().role, action="force a deletion", needed="owner")
    return forced


def tell_deleted(connection: Connection, noun: str, exact: Reference, digest: str, users: Sequence[str]) -> None:
    """The event of a deletion; ``users`` are those that used the version all the same (only a forced one has any)."""
    if users:
        tell(connection, f"{noun}.force-deleted", f"{noun}/{exact}", digest=digest, users=", ".join(users))
    else:
        tell(connection, f"{noun}.deleted", f"{noun}/{exact}", digest=digest)


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_holds_nul(part) for part in value)
