"""Files of edge deployments: TOML, YAML or JSON, found out by their ending or, failing that, by what stands in them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.edge_finding import Finding
from hedgerow.contracts.edge_manifest import read_manifest
from hedgerow.errors import MissingExtra, UserError

MAX_CHARACTERS = 4 << 20
_ENDINGS = {".toml": "TOML", ".yaml": "YAML", ".yml": "YAML", ".json": "JSON"}


class ManifestUnreadable(UserError):
    """A manifest that is not what its ending says, or nothing that can be read."""

    key = "manifest_unreadable"
    message = "The manifest {path} cannot be read as {format}: {problem}"
    remedy = "Correct the file; its format is told by its ending (.toml, .yaml, .json)."


def read_manifest_text(
    text: str,
    path: PurePath,
    name: str | None = None,
    target: str | None = None,
    priority: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[EdgeDeployment, list[Finding]]:
    """The deployment in ``text``, which stood at ``path``, and what there is to say about it.

    Raises ManifestUnreadable, MissingExtra (YAML), InvalidDocument, IotEdgeInvalid, IotEdgeSchemaUnknown, IotEdgeVariables.
    """
    return read_manifest(parse(text, path), name, target, priority, variables)


def parse(text: str, path: PurePath) -> object:
    """The plain value of a manifest's text. Raises ManifestUnreadable, MissingExtra."""
    kind = _ENDINGS.get(path.suffix.lower()) or _guess(text)
    if len(text) > MAX_CHARACTERS:
        raise ManifestUnreadable(path=path, format=kind, problem=f"it has more than {MAX_CHARACTERS} characters")
    readers: dict[str, Callable[[str], object]] = {"TOML": tomllib.loads, "JSON": _json, "YAML": _yaml}
    try:
        return readers[kind](text)
    except (ValueError, RecursionError) as problem:
        words = "it is nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        raise ManifestUnreadable(path=path, format=kind, problem=words) from None


def _guess(text: str) -> str:
    """JSON begins with a brace; TOML, which has tables in brackets and `=`, is tried before YAML."""
    if text.lstrip()[:1] == "{":
        return "JSON"
    try:
        tomllib.loads(text[:MAX_CHARACTERS])
    except (ValueError, RecursionError):
        return "YAML"
    return "TOML"


def _json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_no_doubles, parse_constant=_no_constant)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is given twice")
        found[key] = value
    return found


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is no JSON")


def _yaml(text: str) -> object:
    try:
        from registry.safe_yaml import YamlRefused, read_yaml
        from registry.yaml_values import plain_value
    except ModuleNotFoundError as problem:
        raise MissingExtra(what="YAML manifests", module=problem.name, extra="server") from None
    try:
        return plain_value(read_yaml(text))
    except YamlRefused as problem:
        raise ValueError(str(problem)) from None
