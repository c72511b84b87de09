"""The story of ``hedgerow edge lint``: read the file as a deployment would, then look at each part for its traps.

text ──▶ parsed ──▶ EdgeDeployment ──▶ modules, ports, routes, target ──▶ findings, errors first
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.edge_finding import Finding, did_you_mean, error, note, warning
from hedgerow.contracts.edge_manifest import read_manifest, unknown_keys
from hedgerow.contracts.iot_edge.envelope import is_iot_edge
from hedgerow.contracts.iot_edge.errors import IotEdgeInvalid
from hedgerow.errors import HedgerowError
from hedgerow.sdk.edge_files import parse
from hedgerow.sdk.edge_lint.modules import module_findings
from hedgerow.sdk.edge_lint.places import in_iot_edge
from hedgerow.sdk.edge_lint.ports import port_findings
from hedgerow.sdk.edge_lint.rollouts import rollout_findings
from hedgerow.sdk.edge_lint.routes import route_findings
from hedgerow.sdk.edge_lint.shadows import shadow_findings
from hedgerow.sdk.edge_lint.target import target_findings

_ORDER = {"error": 0, "warning": 1, "note": 2}


def lint_text(
    text: str,
    path: PurePath,
    *,
    target: str | None = None,
    priority: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Everything there is to say about a manifest, errors first; empty for one without any trap."""
    try:
        document = parse(text, path)
    except HedgerowError as problem:
        return [_refusal(problem)]
    return lint(document, target=target, priority=priority, variables=variables)


def lint(
    document: object,
    *,
    target: str | None = None,
    priority: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Like :func:`lint_text` for a value that was parsed already."""
    strange = unknown_keys(document) if isinstance(document, dict) and not is_iot_edge(document) else []
    wrong = [one for one in strange if one.level == "error"]
    if wrong:
        return wrong + [one for one in strange if one.level != "error"]
    try:
        deployment, findings = read_manifest(document, None, target, priority, variables)
    except HedgerowError as problem:
        return [_refusal(problem)]
    said_target, said_priority = (
        target is not None or _has(document, "target"),
        priority is not None or _has(document, "priority"),
    )
    found = [*target_findings(deployment, said_target), *_priority_findings(deployment, said_priority)]
    found += [*_content_findings(deployment), *rollout_findings(deployment)]
    if is_iot_edge(document):
        found = [in_iot_edge(one, deployment) for one in found]
    return sorted([*findings, *found], key=lambda one: _ORDER[one.level])


def _content_findings(deployment: EdgeDeployment) -> list[Finding]:
    if not deployment.modules and not deployment.layered:
        return [
            note("$.modules", "there are no modules; devices that it wins stop what they run"),
            *_meant_for_nobody(deployment),
            *route_findings(deployment),
        ]
    of_modules = [
        one for name, spec in deployment.modules.items() for one in (*module_findings(name, spec), *shadow_findings(name, spec))
    ]
    return [*of_modules, *_meant_for_nobody(deployment), *port_findings(deployment), *route_findings(deployment)]


def _meant_for_nobody(deployment: EdgeDeployment) -> list[Finding]:
    if deployment.layered:  # it may speak of what lies below it
        return []
    return [
        warning(f"$.twins.{name}", f"there is no module {name!r} in this deployment", did_you_mean(name, deployment.modules))
        for name in deployment.twins
        if name not in deployment.modules
    ]


def _priority_findings(deployment: EdgeDeployment, said: bool) -> list[Finding]:
    if said:
        return []
    return [
        note(
            "$.priority",
            f"it is not given, so it is {deployment.priority}; of those that match a device the highest wins, then the newest",
            "Write priority in the manifest, or give --priority.",
        )
    ]


def _has(document: object, key: str) -> bool:
    folded = {str(one).lower() for one in document} if isinstance(document, dict) else set()
    return key in folded or (key == "target" and "targetcondition" in folded)


def _refusal(problem: HedgerowError) -> Finding:
    if isinstance(problem, IotEdgeInvalid):
        return error(str(problem.fields["place"]), str(problem.fields["problem"]), problem.advice)
    return error("$", str(problem), problem.advice)
