"""What every route says of itself: who may call it, what it takes and gives. The OpenAPI document is made from this."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, cast

import msgspec
from flask import Flask, Response, request

from hedgerow.contracts.api import Role
from hedgerow.errors import HedgerowError
from registry.server import arguments
from registry.server.access import authenticate_key
from registry.server.arguments import QueryField
from registry.server.http import MAX_PAGE, needs

__all__ = ["FORCE", "PAGE", "Operation", "QueryField", "operation", "operation_of"]

P = ParamSpec("P")
_MARK = "hedgerow_operation"

PAGE = (
    QueryField("limit", "how many at most, 1 to 1000; 100 if absent", "integer", least=1, most=MAX_PAGE),
    QueryField("after", "the `next` of the page before"),
)
# Of every deletion that is refused while something uses the record; read with :func:`registry.server.http.is_forced`.
FORCE = QueryField("force", "also while something uses it; needs the role owner", "boolean")


@dataclass(frozen=True)
class Operation:
    """One route. ``body`` and ``result`` are Structs, or media types for content that is none.

    ``result`` may be a union of Structs; ``also`` are further successful answers by status (None: without a body).
    ``by_key``: for bearers of enrolment keys and nobody else.
    """

    summary: str
    roles: tuple[Role, ...]
    scope: str
    body: type[msgspec.Struct] | str | None
    result: Any
    status: int
    query: tuple[QueryField, ...]
    errors: tuple[type[HedgerowError], ...]
    also: tuple[tuple[int, Any], ...] = ()
    by_key: bool = False


def operation(
    summary: str,
    *roles: Role,
    scope: str,
    body: type[msgspec.Struct] | str | None = None,
    result: Any = None,  # noqa: ANN401 - a Struct, Page[Struct] or a media type
    status: int = 200,
    query: tuple[QueryField, ...] = (),
    errors: tuple[type[HedgerowError], ...] = (),
    also: tuple[tuple[int, Any], ...] = (),
    by_key: bool = False,
) -> Callable[[Callable[P, Response]], Callable[P, Response]]:
    """Describe a handler and let only ``roles`` in (see :func:`registry.server.http.needs`).

    ``scope`` is the noun that a token's scopes name (``models``); ``result`` None means 204. Only the arguments of
    ``query`` are taken, and the handler reads them through :mod:`registry.server.arguments`. ``by_key``: for bearers of
    enrolment keys, which have no role.
    """

    def decorate(handler: Callable[P, Response]) -> Callable[P, Response]:
        @functools.wraps(handler)
        def with_arguments(*args: P.args, **kwargs: P.kwargs) -> Response:
            arguments.take(query, request.args)
            return handler(*args, **kwargs)

        guarded = needs(*roles, scope=scope, bearer=authenticate_key if by_key else None)(with_arguments)
        status_of_good = 204 if result is None else status
        described = Operation(summary, roles, scope, body, result, status_of_good, query, errors, also, by_key)
        setattr(guarded, _MARK, described)
        return guarded

    return decorate


def operation_of(app: Flask, endpoint: str) -> Operation | None:
    """What the handler of ``endpoint`` says of itself; None for pages and files."""
    return cast("Operation | None", getattr(app.view_functions[endpoint], _MARK, None))
