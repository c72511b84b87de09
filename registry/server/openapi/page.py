"""The document for reading: operations by noun, with their arguments, bodies, examples and answers in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from hedgerow.contracts.names import DIGEST_PATTERN, KNOWN_NAME_PATTERN, NAME_PATTERN
from hedgerow.errors import HedgerowError
from registry.server.http_errors import status_of_kind
from registry.server.openapi.answers import errors_of
from registry.server.openapi.document import Route
from registry.server.openapi.examples import curl, example, path_example

_VARIABLE = re.compile(r"{(\w+)}")
_REF = "#/components/schemas/"
_PATTERNS = {NAME_PATTERN: "name", KNOWN_NAME_PATTERN: "name", DIGEST_PATTERN: "digest"}
_WORDS = {"object": "object", "boolean": "true or false", "null": "null"}


@dataclass(frozen=True)
class TypeWords:
    """A type in words; ``shape`` names the component that it is made of, to be linked."""

    words: str
    shape: str | None = None


@dataclass(frozen=True)
class Field:
    """One argument, or one field of a body."""

    name: str
    where: str
    type: TypeWords
    meaning: str
    required: bool
    otherwise: str = ""


@dataclass(frozen=True)
class Shape:
    """One component: an object with its fields."""

    name: str
    meaning: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class ErrorWords:
    """One error that an operation may answer with."""

    status: int
    code: str
    meaning: str


@dataclass(frozen=True)
class Entry:
    """One operation, ready to be shown."""

    id: str
    method: str
    path: str
    summary: str
    meaning: tuple[str, ...]
    roles: tuple[str, ...]
    fields: tuple[Field, ...]
    body: TypeWords | None
    results: tuple[tuple[int, str, TypeWords | None], ...]
    request: str
    answer: str
    errors: tuple[ErrorWords, ...]


def entries(found: list[Route], document: Mapping[str, Any]) -> list[Entry]:
    """One for each route, in the document's order."""
    return [_entry(route, document) for route in found]


def shapes(found: list[Entry], document: Mapping[str, Any]) -> list[Shape]:
    """Every component that these operations' bodies and results are made of, by name."""
    schemas = document["components"]["schemas"]
    waiting = {kind.shape for entry in found for kind in (entry.body, *(kind for _, _, kind in entry.results)) if kind}
    known: dict[str, Shape] = {}
    while waiting:
        name = waiting.pop()
        if name is None or name in known:
            continue
        known[name] = _shape(name, schemas[name])
        waiting |= {field.type.shape for field in known[name].fields}
    return [known[name] for name in sorted(known)]


def _entry(route: Route, document: Mapping[str, Any]) -> Entry:
    described = document["paths"][route.path][route.method]
    body = next(iter(described.get("requestBody", {}).get("content", {}).items()), None)
    results = tuple(_results(described["responses"]))
    named = bool(_VARIABLE.search(route.path))
    kinds = errors_of(route.operation, route.method, named=named, promises=route.promises)
    return Entry(
        id=route.id,
        method=route.method.upper(),
        path=route.path,
        summary=route.operation.summary,
        meaning=tuple(described["description"].split("\n\n")[:-1]),
        roles=route.operation.roles,
        fields=tuple(map(_argument, described["parameters"])),
        body=None if body is None else _type(body[1].get("schema", {}), body[0]),
        results=results,
        request=_request(route, body, document),
        answer=_answer(route, described, document),
        errors=tuple(sorted((_error(kind) for kind in kinds), key=lambda error: (error.status, error.code))),
    )


def _results(responses: Mapping[str, Any]) -> Iterator[tuple[int, str, TypeWords | None]]:
    for status, answer in responses.items():
        if int(status) >= HTTPStatus.BAD_REQUEST:
            continue
        contents: list[TypeWords | None] = [_media_type(media, content) for media, content in answer.get("content", {}).items()]
        for kind in contents or [None]:
            yield int(status), answer["description"], kind


def _request(route: Route, body: tuple[str, Mapping[str, Any]] | None, document: Mapping[str, Any]) -> str:
    path = _VARIABLE.sub(lambda variable: path_example(variable[1], route.noun), route.path)
    if body is None:
        return curl(route.method, path, None, media=None)
    media, content = body
    sent = example(content["schema"], document["components"]["schemas"], route.noun) if "schema" in content else None
    return curl(route.method, path, sent, media=media)


def _answer(route: Route, described: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    content = described["responses"].get(str(route.operation.status), {}).get("content", {})
    if "application/json" not in content:
        return ""
    shown = example(content["application/json"]["schema"], document["components"]["schemas"], route.noun)
    return json.dumps(shown, indent=2, ensure_ascii=False)


def _error(kind: type[HedgerowError]) -> ErrorWords:
    return ErrorWords(status_of_kind(kind), kind.key, " ".join((kind.__doc__ or "").split()))


def _argument(described: Mapping[str, Any]) -> Field:
    words = _type(described["schema"])
    return Field(described["name"], described["in"], words, described["description"], described["required"])


def _shape(name: str, schema: Mapping[str, Any]) -> Shape:
    required = set(schema.get("required", ()))
    fields = tuple(
        Field(key, "body", _type(part), part.get("description", ""), key in required, _otherwise(part))
        for key, part in schema.get("properties", {}).items()
    )
    return Shape(name, schema.get("description", ""), fields)


def _otherwise(schema: Mapping[str, Any]) -> str:
    value = schema.get("default")
    return "" if value in (None, "", [], {}) or isinstance(value, dict) else json.dumps(value, ensure_ascii=False)


def _type(schema: Mapping[str, Any], media: str = "") -> TypeWords:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return TypeWords(name, name)
    if "anyOf" in schema:
        parts = [_type(part) for part in schema["anyOf"]]
        return TypeWords(" or ".join(part.words for part in parts), next((part.shape for part in parts if part.shape), None))
    if "enum" in schema:
        return TypeWords(" | ".join(str(value) for value in schema["enum"]))
    kind = schema.get("type", "")
    if kind == "array":
        below = _type(schema["items"])
        return TypeWords(f"list of {below.words}", below.shape)
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        below = _type(schema["additionalProperties"])
        return TypeWords(f"object of {below.words}", below.shape)
    if kind in ("integer", "number"):
        return TypeWords(kind + _bounds(schema))
    if kind == "string":
        return TypeWords(_text(schema))
    return TypeWords(_WORDS.get(kind, media or "any JSON"))


def _text(schema: Mapping[str, Any]) -> str:
    if schema.get("format") == "date-time":
        return "time"
    if schema.get("pattern") in _PATTERNS:
        return _PATTERNS[schema["pattern"]]
    return f"text up to {schema['maxLength']} characters" if "maxLength" in schema else "text"


def _media_type(media: str, content: Mapping[str, Any]) -> TypeWords:
    return _type(content["schema"]) if media == "application/json" else TypeWords(media)


def _bounds(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None and most is None:
        return ""
    return f" from {least}" if most is None else f" up to {most}" if least is None else f" from {least} to {most}"
