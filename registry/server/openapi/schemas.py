"""Components of the document: JSON Schemas of every Struct that crosses the API, under tidy names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from types import UnionType
from typing import Any, TypeAlias, get_args

import msgspec

from hedgerow.contracts.work import ProblemAnswer
from registry.server.operation import Operation

# What a parser of JSON gives: checked where it is looked into.
Json: TypeAlias = Any
_REF = "#/components/schemas/"
_GENERIC = re.compile(r"^(\w+?)_(\w+)_$")
_DOUBLE = re.compile(r"``([^`]+)``")


def prose(text: str | None) -> str:
    """A docstring as CommonMark."""
    return _DOUBLE.sub(r"`\1`", inspect.cleandoc(text or ""))


def structs_of(described: Any) -> list[Any]:  # noqa: ANN401 - Operation.result
    """The Structs in an operation's ``body`` or ``result``: none for a media type."""
    if described is None or isinstance(described, str):
        return []
    return list(get_args(described)) if isinstance(described, UnionType) else [described]


def components(operations: Iterable[Operation]) -> tuple[dict[str, dict[str, Any]], dict[Any, dict[str, Any]]]:
    """Schemas by name, and for each Struct that an operation names where its schema is."""
    wanted: dict[Any, None] = {ProblemAnswer: None}
    for operation in operations:
        for described in (operation.body, operation.result, *(result for _, result in operation.also)):
            wanted |= dict.fromkeys(structs_of(described))
    references, found = msgspec.json.schema_components(list(wanted), schema_hook=_any_value, ref_template=_REF + "{name}")
    by_kind = {kind: _tidy(reference) for kind, reference in zip(wanted, references, strict=True)}
    return {_tidy_name(name): _tidy(found[name]) for name in sorted(found, key=_tidy_name)}, by_kind


def _any_value(kind: type) -> dict[str, object]:
    if kind is object:
        return {"description": "any JSON value"}
    raise TypeError(f"{kind} has no JSON Schema")


def _tidy_name(name: str) -> str:
    """``Page_Run_`` is a page of runs."""
    return _GENERIC.sub(r"\1Of\2", name)


def _tidy(schema: Json) -> Json:
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {key: _tidy(value) for key, value in schema.items()}
    if isinstance(reference := tidied.get("$ref"), str):
        tidied["$ref"] = _REF + _tidy_name(reference.removeprefix(_REF))
    if isinstance(text := tidied.get("description"), str):
        tidied["description"] = prose(text)
    if isinstance(title := tidied.get("title"), str) and "[" in title:
        tidied["title"] = re.sub(r"(\w+)\[(\w+)\]", r"\1 of \2", title)
    return tidied
