"""Examples for people: JSON that fits a schema, and the command line that sends it. The same schema, the same example."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from hedgerow.contracts.document import digest_of
from registry.server.openapi.schemas import Json

_DIGEST = digest_of(b"hedgerow")
_ID = "0196f3a2b4c8-5d1e9a07"
_NAMES = {
    "devices": "press-1",
    "edge-deployments": "line-3",
    "environments": "iris-env",
    "images": "iris-onnx",
    "secrets": "smtp-password",
    "tokens": "ci",
    "webhooks": "chat",
}
# By the name of a field or of a path's variable.
_VALUES: dict[str, Any] = {
    "activity_id": _ID,
    "alias": "champion",
    "at": "2026-01-31T12:00:00Z",
    "conda_file": None,
    "deployment": "blue",
    "device": "press-1",
    "digest": _DIGEST,
    "digests": [_DIGEST],
    "endpoint": "iris",
    "event_number": 42,
    "experiment": "iris",
    "framework": "onnx",
    "id": _ID,
    "image": "iris-onnx:1",
    "installation": "5f0c2d9b7a41e6839c0d1b2a3f4e5d6c",
    "message": "There is no model iris",
    "models": ["iris:1"],
    "number": 42,
    "path": "model.onnx",
    "remedy": "See what there is with: hedgerow model list",
    "reference": "iris:1",
    "requirements": ["scikit-learn==1.5.2"],
    "role": "reader",
    "run_id": _ID,
    "script": "train.py",
    "size_bytes": 7120,
    "tags": {"site": "north"},
    "target": "tags.site = 'north'",
    "token_id": _ID,
    "traffic": {"blue": 100},
    "url": "https://chat.example.com/hooks/hedgerow",
    "value": "correct-horse",
    "version": 1,
}
# Where a field of this name means something else.
_OF_NOUN: dict[tuple[str, str], Any] = {("images", "target"): "registry.example.com/team/iris:1"}
# Further in only what is required is shown.
_SHOWN = 2
_MOST_DEPTH = 6
_ONE_LINE = 80


def example(schema: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]], noun: str) -> Json:
    """A value of ``schema``: what is required, and what a table of this module knows words for."""
    return _value(schema, schemas, noun, "", 0)


def path_example(name: str, noun: str) -> str:
    """What may stand for ``{name}`` in a path."""
    known = _VALUES.get(name)
    return _NAMES.get(noun, "iris") if known is None else str(known)


def curl(method: str, path: str, body: Json, *, media: str | None) -> str:
    """One command for a shell; ``body`` is sent as JSON, content of another ``media`` type from a file."""
    lines = ["curl"] if method == "get" else [f"curl -X {method.upper()}"]
    lines[0] += f' "$HEDGEROW_URL{path}"'
    lines.append('-H "Authorization: Bearer $HEDGEROW_TOKEN"')
    if media is not None:
        lines.append(f"-H 'Content-Type: {media}'")
        lines.append("--data-binary @model.onnx" if body is None else f"-d {shlex.quote(_json(body))}")
    return " \\\n  ".join(lines)


def _json(body: Json) -> str:
    short = json.dumps(body, ensure_ascii=False)
    return short if len(short) <= _ONE_LINE else json.dumps(body, indent=2, ensure_ascii=False)


def _value(schema: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]], noun: str, name: str, depth: int) -> Json:
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        schema = next(part for part in schema["anyOf"] if part.get("type") != "null")
        return _value(schema, schemas, noun, name, depth)
    known = _known(schema, noun, name)
    if known is not None:
        return known
    match schema.get("type"):
        case "object":
            return _object(schema, schemas, noun, depth)
        case "array":
            return [_value(schema["items"], schemas, noun, name, depth + 1)] if depth < _MOST_DEPTH else []
        case _:
            return _scalar(schema)


def _known(schema: Mapping[str, Any], noun: str, name: str) -> Json:
    """The table's value for this field, if it is of the field's type."""
    value = _NAMES.get(noun, "iris") if name == "name" else _OF_NOUN.get((noun, name), _VALUES.get(name))
    kinds = {"string": str, "integer": int, "array": list, "object": dict}
    fits = isinstance(value, kinds.get(schema.get("type", ""), ())) and ("enum" not in schema or value in schema["enum"])
    return value if fits and ("properties" not in schema) else None


def _object(schema: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]], noun: str, depth: int) -> dict[str, Any]:
    required = set(schema.get("required", ()))
    found = {
        name: _value(part, schemas, noun, name, depth + 1)
        for name, part in schema.get("properties", {}).items()
        if name in required or (depth <= _SHOWN and _VALUES.get(name) is not None and _known(part, noun, name) is not None)
    }
    more = schema.get("additionalProperties")
    if not found and isinstance(more, Mapping) and depth < _MOST_DEPTH:
        return {"scorer" if "$ref" in more else "key": _value(more, schemas, noun, "", depth + 1)}
    return found


def _scalar(schema: Mapping[str, Any]) -> Json:
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "date-time":
        return _VALUES["at"]
    if "sha256" in schema.get("pattern", ""):
        return _DIGEST
    if "[0-9a-f]{7" in schema.get("pattern", ""):
        return "5d1e9a07c2"
    number = schema.get("minimum", 1)
    return {"integer": number, "number": float(number), "boolean": False, "string": "text", "null": None}.get(
        schema.get("type", "")
    )
