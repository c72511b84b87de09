"""The story: a parsed deployment of Azure IoT Edge in, our EdgeDeployment and what is different about it out. Pure.

document ──fill in variables──▶ envelope ──▶ $edgeAgent: modules      ┐
                                        ──▶ $edgeHub: routes, TTL     ├─▶ EdgeDeployment, findings
                                        ──▶ every other key: a twin   ┘
"""

from __future__ import annotations

from collections.abc import Mapping

from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.edge_finding import Finding, note, warning
from hedgerow.contracts.iot_edge.agent_part import AgentPart, read_agent_part
from hedgerow.contracts.iot_edge.envelope import Envelope, open_envelope
from hedgerow.contracts.iot_edge.errors import IotEdgeVariables, wrong
from hedgerow.contracts.iot_edge.hub_part import HubPart, read_hub_part
from hedgerow.contracts.iot_edge.names import module_names, our_name
from hedgerow.contracts.iot_edge.properties import Desired, read_desired
from hedgerow.contracts.iot_edge.variables import fill_in, names_in
from hedgerow.contracts.plain_values import UnboundedValue, check_bounds

AGENT, HUB = "$edgeAgent", "$edgeHub"


def read_iot_edge(
    document: object,
    name: str | None = None,
    target: str | None = None,
    priority: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[EdgeDeployment, list[Finding]]:
    """What is not given is taken from the document: its id (in our grammar), targetCondition ("" if none) and priority (0).

    ``variables`` fill in a template's ``${NAME}``. Raises IotEdgeInvalid, IotEdgeSchemaUnknown, IotEdgeVariables.
    """
    try:
        check_bounds(document)
    except UnboundedValue as problem:
        raise wrong("$", str(problem), "Make it smaller.") from None
    envelope = open_envelope(document)
    _check_given(envelope, variables or {})
    if variables:
        envelope = open_envelope(fill_in(document, variables))
    parts = _parts(envelope)
    layered = _is_layered(parts, envelope.content.place)
    agent = read_agent_part(parts.pop(AGENT, Desired(f"{envelope.content.place}.{AGENT}", None)))
    hub = read_hub_part(parts.pop(HUB)) if HUB in parts else HubPart()
    twins, replaced, of_twins = _twins(parts, agent, layered)
    findings = [*envelope.findings, *agent.findings, *hub.findings, *of_twins]
    if layered:
        findings.append(note(envelope.content.place, "it is a layer: it adds to the deployment that wins for a device"))
    deployment = EdgeDeployment(
        name=name or our_name(envelope.id or "") or "deployment",
        target=(envelope.target or "") if target is None else target,
        priority=(envelope.priority or 0) if priority is None else priority,
        modules=dict(agent.modules),
        layered=layered,
        labels=envelope.labels,
        routes=dict(hub.routes),
        telemetry=hub.telemetry,
        twins=twins,
        replaced_twins=replaced,
    )
    return deployment, findings


def _check_given(envelope: Envelope, variables: Mapping[str, str]) -> None:
    """A template's variables must all be known, but for credentials, which are not read. Elsewhere ``${…}`` is a text as any."""
    content = envelope.content
    for key in (AGENT, HUB):
        unread = {"registrycredentials", "systemmodules"}
        read = _without(content.get(key), unread if envelope.is_template else {*unread, "env", "createoptions"})
        left = names_in(read) - variables.keys()
        if left:
            raise IotEdgeVariables(names=", ".join(sorted(left)[:20]))


def _without(value: object, keys: set[str]) -> object:
    if isinstance(value, dict):
        return {key: _without(inner, keys) for key, inner in value.items() if str(key).lower() not in keys}
    return value


def _parts(envelope: Envelope) -> dict[str, Desired]:
    found: dict[str, Desired] = {}
    for key, part in envelope.content.parts():
        known = next((name for name in (AGENT, HUB) if name.lower() == key.lower()), key)
        if known in found:
            raise wrong(part.place, f"{known} is there twice", "Keep one of them.")
        found[known] = read_desired(part)
    return found


def _is_layered(parts: Mapping[str, Desired], place: str) -> bool:
    """A base has ``properties.desired`` of ``$edgeAgent``, a layer has not. Raises IotEdgeInvalid for a mixture."""
    layered = AGENT not in parts or parts[AGENT].is_layer
    hub = parts.get(HUB)
    if hub is not None and hub.whole is not None and layered:
        advice = "Flatten its keys (properties.desired.routes.NAME), or give $edgeAgent its properties.desired."
        raise wrong(f"{place}.{HUB}", "a layer cannot replace all of $edgeHub", advice)
    return layered


def _twins(
    parts: Mapping[str, Desired], agent: AgentPart, layered: bool
) -> tuple[dict[str, dict[str, object]], list[str], list[Finding]]:
    """Twins by our names, those of a layer that replace the base's, and findings."""
    names = {**module_names(parts, "$.modulesContent"), **{key: value for key, value in agent.names.items() if key in parts}}
    findings: list[Finding] = []
    twins: dict[str, dict[str, object]] = {}
    replaced: list[str] = []
    for identity, desired in parts.items():
        if names[identity] not in agent.modules and not layered:
            findings.append(
                warning(desired.place, f"there is no module {identity!r} for this twin", "Add the module, or take the twin away.")
            )
        twins[names[identity]] = desired.merged()
        if layered and desired.whole is not None:
            replaced.append(names[identity])
    return twins, sorted(replaced), findings
