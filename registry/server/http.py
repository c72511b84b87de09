"""The words in which every API module is written: who asks, what they sent, how to answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import msgspec
from flask import Response, current_app, g, request

from hedgerow.contracts.api import Role
from hedgerow.contracts.document import decode, encode
from hedgerow.errors import InvalidDocument
from registry.errors import RoleForbids
from registry.server import access
from registry.server.context import Caller, ServerContext
from registry.server.errors import ConnectionStalled, ContentTypeRefused, DocumentTooLarge, InvalidArgument, MalformedRequest

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
_LIMIT_DIGITS = 4
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


def needs(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let only these roles in (owner ⊃ contributor ⊃ reader; the others only where named).

    Raises TokenMissing or TokenRefused (401), RoleForbids (403).
    """
    allowed = frozenset().union(*(_ALSO.get(role, frozenset({role})) for role in roles))

    def decorate(handler: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(handler)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            found = access.authenticate(context(), request)
            if found.role not in allowed:
                raise RoleForbids(role=found.role, action=f"{request.method} {request.path}", needed=" or ".join(roles))
            g.caller = found
            return handler(*args, **kwargs)

        return guarded

    return decorate


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
    return document


class BodyStream:
    """The request's body, read as it arrives; whatever the other end does wrong is an error of the caller."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none at the end. Raises ConnectionStalled, MalformedRequest."""
        try:
            return request.stream.read(size)
        except TimeoutError:
            raise ConnectionStalled(timeout_s=SILENCE_S) from None
        except OSError:
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
    return Response(encode(document), status, headers, mimetype="application/json")


def no_content() -> Response:
    """204: done, nothing to say."""
    return Response(status=204)


def page_arguments() -> tuple[int, str | None]:
    """``?limit=`` (1 to 1000, 100 if absent) and ``?after=`` (the ``next`` of the page before)."""
    text = request.args.get("limit", str(DEFAULT_PAGE))
    if not (text.isascii() and text.isdigit() and len(text) <= _LIMIT_DIGITS and 1 <= int(text) <= MAX_PAGE):
        raise InvalidArgument(name="limit", value=text[:80], hint=f"Use a number from 1 to {MAX_PAGE}.")
    return int(text), request.args.get("after") or None


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_holds_nul(part) for part in value)
