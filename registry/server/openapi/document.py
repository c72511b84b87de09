"""The whole document: one path item for each address below ``/api/v1``, one operation for each method of it.

Takes the routes of an application; opens and reads nothing. The same routes give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from hedgerow.contracts.names import HEADER_IDEMPOTENCY, HEADER_LAST_EVENT
from registry.server.arguments import QueryField
from registry.server.openapi import addresses
from registry.server.openapi.answers import answers, shared_answers
from registry.server.openapi.promises import Promises, promises_of
from registry.server.openapi.schemas import components, prose, structs_of
from registry.server.operation import Operation, operation_of

_ABOUT = """\
Everything that Hedgerow's command line and its SDK do goes through this API.

- **Tokens.** Send `Authorization: Bearer TOKEN`. Roles include each other: an owner may do what a contributor may, a \
contributor what a reader may.
- **Errors** have one shape, `{"error": {"code", "message", "remedy", "details"}}`: `code` is stable, `remedy` says what to do.
- **Lists** come in pages: pass `next` as `after`. An argument that an operation does not know is refused.
- **ETags.** Send a record's ETag as `If-Match` and a change is made only if nobody else was quicker.
- **Idempotency keys.** Send an `Idempotency-Key` with a write, and repeating it after a lost answer changes nothing twice.
"""
NOUNS = {
    "activities": "Long work: what runs, how far it is, how it ended",
    "backup": "Copies of the whole workspace",
    "blobs": "Content by its digest: the bytes of models, snapshots and images",
    "devices": "Enrol them, look at what they should do and at what they say",
    "edge-deployments": "What devices that match a condition should run",
    "enroll": "How a device becomes known by itself, with an enrolment key",
    "enrollment-keys": "Keys with which devices enrol by themselves",
    "endpoints": "URLs with their traffic split over deployments of images",
    "environments": "Python environments: what was asked for, version by version",
    "events": "Every change, in order: who did what",
    "fleet": "What happened to devices",
    "gc": "Freeing what nothing refers to",
    "images": "Models with their environment and script, addressed by digest",
    "lineage": "What something was made from, and what was made from it",
    "models": "Files with their facts, version by version",
    "runs": "Recorded training runs: what they ran on, logged and left",
    "secrets": "Written, never shown",
    "signing-keys": "Keys that sign what devices are told",
    "telemetry": "What devices sent, and what is known to be missing",
    "tokens": "Who may do what",
    "unsigned-desired-states": "What waits for the signature of a key that is kept elsewhere",
    "webhooks": "Addresses that are told of changes",
    "workspace": "The workspace itself",
}
_MEDIA_KINDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "instant": {"type": "string", "format": "date-time"},
}
_STREAM = "text/event-stream"
_LARGEST_PLAIN = 2**53


@dataclass(frozen=True)
class Route:
    """One method at one address, with what its handler says of itself."""

    path: str
    method: str
    noun: str
    rule: Rule
    handler: Callable[..., object]
    operation: Operation
    promises: Promises

    @property
    def id(self) -> str:
        """The handler's name; unique among all routes."""
        return str(self.handler.__name__)


def routes(app: Flask) -> list[Route]:
    """Every described route of ``app``, by address and method."""
    found = [route for rule in app.url_map.iter_rules() for route in _routes_of(app, rule)]
    order = {"get": 0, "post": 1, "put": 2, "patch": 3, "delete": 4}
    return sorted(found, key=lambda route: (route.path, order[route.method]))


def document(app: Flask) -> dict[str, Any]:
    """The OpenAPI 3.1 document of ``app``."""
    found = routes(app)
    schemas, by_kind = components(route.operation for route in found)
    paths: dict[str, Any] = {}
    for route in found:
        paths.setdefault(route.path, {})[route.method] = _operation(route, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hedgerow", "version": "1", "description": _ABOUT},
        "servers": [{"url": "/", "description": "this workspace"}],
        "security": [{"token": []}],
        "tags": [{"name": noun, "description": NOUNS[noun]} for noun in sorted({route.noun for route in found})],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "from `hedgerow token create`"},
                "enrollment_key": {"type": "http", "scheme": "bearer", "description": "from `hedgerow device key create`"},
            },
            "responses": shared_answers(by_kind),
            "schemas": schemas,
        },
    }


def document_bytes(app: Flask) -> bytes:
    """The document as it is served and as it stands in docs/reference."""
    return (json.dumps(document(app), indent=1, ensure_ascii=False) + "\n").encode()


def _routes_of(app: Flask, rule: Rule) -> Iterator[Route]:
    operation = operation_of(app, rule.endpoint)
    if operation is None or not rule.rule.startswith(addresses.API):
        return
    handler = app.view_functions[rule.endpoint]
    for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
        path, noun = addresses.template(rule), addresses.noun(rule)
        yield Route(path, method.lower(), noun, rule, handler, operation, promises_of(handler))


def _operation(route: Route, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    named = addresses.parameters(route.rule)
    described: dict[str, Any] = {
        "operationId": route.id,
        "tags": [route.noun],
        "summary": route.operation.summary,
        "description": _description(route),
        "x-hedgerow-roles": list(route.operation.roles),
        "parameters": [*named, *map(_query, route.operation.query), *_headers(route)],
    }
    if route.operation.by_key:
        described["security"] = [{"enrollment_key": []}]
    if route.operation.body is not None:
        described["requestBody"] = {"required": True, "content": _body(route.operation.body, schemas)}
    described["responses"] = answers(route.operation, route.method, named=bool(named), promises=route.promises, schemas=schemas)
    return described


def _description(route: Route) -> str:
    roles = " or ".join(f"`{role}`" for role in route.operation.roles)
    needed = "Needs an enrolment key." if route.operation.by_key else f"Needs the role {roles}."
    return "\n\n".join(part for part in (prose(route.handler.__doc__), needed) if part)


def _body(body: Any, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:  # noqa: ANN401 - Operation.body
    if isinstance(body, str):
        return {body: {}}
    return {"application/json": {"schema": schemas[structs_of(body)[0]]}}


def _query(field: QueryField) -> dict[str, Any]:
    schema = dict(_MEDIA_KINDS[field.kind])
    if field.choices:
        schema["enum"] = list(field.choices)
    if field.kind == "integer":
        schema |= {"minimum": field.least} | ({"maximum": field.most} if field.most < _LARGEST_PLAIN else {})
    if field.repeated:
        schema = {"type": "array", "items": schema}
    return {"name": field.name, "in": "query", "required": False, "description": field.meaning, "schema": schema}


def _headers(route: Route) -> Iterator[dict[str, Any]]:
    if route.promises.matched:
        yield _header("If-Match", "the ETag that the record must still have")
        yield _header("If-None-Match", "`*`: only if there is no such record yet")
    if route.promises.tagged and route.method == "get":
        yield _header("If-None-Match", "an ETag: 304 if the record still has it")
    if route.promises.ranged:
        yield _header("Range", "`bytes=FIRST-LAST`: only this part of the content")
    if _STREAM in (route.operation.result, *(result for _, result in route.operation.also)):
        yield _header(HEADER_LAST_EVENT.title().replace("Id", "ID"), "the `id` of the last event that you have")
    if route.promises.once:
        described = _header(HEADER_IDEMPOTENCY.title(), "a text of your own: a repetition with the same one changes nothing")
        yield described | {"schema": {"type": "string", "pattern": "^[!-~]{1,255}$"}}


def _header(name: str, meaning: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}
