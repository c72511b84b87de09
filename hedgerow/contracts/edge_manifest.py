"""A manifest as a person writes it (TOML, YAML or JSON of ours, or Azure IoT Edge's JSON), read into an EdgeDeployment. Pure.

Our own form is EdgeDeployment itself; name, target and priority may stand in the file or come with the command, and a
route may be its text alone (``routes = { all = "FROM /messages/* INTO $upstream" }``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from hedgerow.contracts.document import convert
from hedgerow.contracts.edge import (
    AgentRelease,
    EdgeDeployment,
    Limits,
    ModuleSpec,
    Probe,
    Route,
    Shadow,
    StreamPolicy,
    TelemetryPolicy,
    TelemetrySources,
    UpdatePolicy,
)
from hedgerow.contracts.edge_finding import Finding, did_you_mean, error, note, unknown_key
from hedgerow.contracts.iot_edge.envelope import is_iot_edge
from hedgerow.contracts.iot_edge.read import read_iot_edge
from hedgerow.contracts.plain_values import UnboundedValue, check_bounds
from hedgerow.contracts.rollout import RolloutGroup, RolloutPolicy
from hedgerow.errors import InvalidDocument

_DOCUMENT = "EdgeDeployment"
_INSIDE_MODULE: Mapping[str, type[msgspec.Struct]] = {
    "probe": Probe,
    "limits": Limits,
    "update": UpdatePolicy,
    "telemetry": TelemetrySources,
    "shadow": Shadow,
}


def read_manifest(
    document: object,
    name: str | None = None,
    target: str | None = None,
    priority: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[EdgeDeployment, list[Finding]]:
    """The deployment, and what the reader has to say about it. What is given wins over what stands in the document.

    Raises InvalidDocument, IotEdgeInvalid, IotEdgeSchemaUnknown, IotEdgeVariables.
    """
    if is_iot_edge(document):
        return read_iot_edge(document, name, target, priority, variables)
    if not isinstance(document, dict):
        raise InvalidDocument(document=_DOCUMENT, problem="it is no object with `modules`")
    try:
        check_bounds(document)
    except UnboundedValue as problem:
        raise InvalidDocument(document=_DOCUMENT, problem=str(problem)) from None
    wrong = next((one for one in unknown_keys(document) if one.level == "error"), None)
    if wrong is not None:
        raise InvalidDocument(document=_DOCUMENT, problem=f"at {wrong.place} {wrong.message}. {wrong.remedy.rstrip('.')}")
    findings = unknown_keys(document)
    written = document.get("name")
    if name is not None and written not in (None, name):
        findings.append(note("$.name", f"it is deployed as {name!r}, not as {str(written)[:80]!r}"))
    given = {"name": name, "target": target, "priority": priority}
    whole = {"name": "deployment", "target": "", "modules": {}, **document, **{k: v for k, v in given.items() if v is not None}}
    return _converted(_with_whole_routes(whole)), findings


def _converted(whole: dict[str, Any]) -> EdgeDeployment:
    try:
        return convert(whole, EdgeDeployment)
    except InvalidDocument:
        # The parser does not say in which module or route; each by itself does.
        for inside, kind in (("modules", ModuleSpec), ("routes", Route)):
            for name, value in _objects(whole.get(inside)):
                try:
                    convert(value, kind)
                except InvalidDocument as problem:
                    words = str(problem.fields["problem"]).replace("`$", f"`$.{inside}.{name}", 1)
                    raise InvalidDocument(document=_DOCUMENT, problem=words) from None
        raise


def unknown_keys(document: Mapping[str, Any]) -> list[Finding]:
    """Keys that our form does not have: warnings at the top, where a newer Hedgerow may know more; errors below."""
    known = _fields(EdgeDeployment)
    found = [unknown_key(f"$.{key}", str(key), known) for key in document if key not in known]
    return [*found, *_below(document)]


def _below(document: Mapping[str, Any]) -> Iterator[Finding]:
    for name, module in _objects(document.get("modules")):
        yield from _strange(f"$.modules.{name}", module, ModuleSpec)
        for key, kind in _INSIDE_MODULE.items():
            if isinstance(module.get(key), dict):
                yield from _strange(f"$.modules.{name}.{key}", module[key], kind)
    for name, route in _objects(document.get("routes")):
        yield from _strange(f"$.routes.{name}", route, Route)
    yield from _below_rollout(document.get("rollout"))
    if isinstance(document.get("agent"), dict):
        yield from _strange("$.agent", document["agent"], AgentRelease)
    telemetry = document.get("telemetry")
    if isinstance(telemetry, dict):
        yield from _strange("$.telemetry", telemetry, TelemetryPolicy)
        for name, stream in _objects(telemetry.get("streams")):
            yield from _strange(f"$.telemetry.streams.{name}", stream, StreamPolicy)


def _below_rollout(rollout: object) -> Iterator[Finding]:
    if not isinstance(rollout, dict):
        return
    yield from _strange("$.rollout", rollout, RolloutPolicy)
    groups = rollout.get("groups")
    for number, group in enumerate(groups if isinstance(groups, list) else []):
        if isinstance(group, dict):
            yield from _strange(f"$.rollout.groups[{number}]", group, RolloutGroup)


def _strange(place: str, value: Mapping[str, Any], kind: type[msgspec.Struct]) -> Iterator[Finding]:
    known = _fields(kind)
    for key in value:
        if key not in known:
            yield error(f"{place}.{key}", f"there is no key {str(key)[:80]!r}", did_you_mean(str(key), known))


def _objects(value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, dict):
        yield from ((str(name), inner) for name, inner in value.items() if isinstance(inner, dict))


def _fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return kind.__struct_encode_fields__


def _with_whole_routes(document: dict[str, Any]) -> dict[str, Any]:
    routes = document.get("routes")
    if not isinstance(routes, dict):
        return document
    return {**document, "routes": {name: {"route": one} if isinstance(one, str) else one for name, one in routes.items()}}
