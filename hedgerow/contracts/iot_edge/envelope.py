"""Where in a document the modules stand. Three envelopes are in use, and automatic deployments put more around them.

``{"modulesContent"}`` (SchemaStore's azure-iot-edge-deployment), ``{"content": {"modulesContent"}}`` (``az iot edge``),
``{"moduleContent"}`` (documents of 2018), and ``{id, content, targetCondition, priority, labels, metrics}`` (what IoT Hub
keeps of an automatic deployment).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hedgerow.contracts.edge_finding import Finding, note
from hedgerow.contracts.iot_edge.errors import wrong
from hedgerow.contracts.iot_edge.part import Part

_CONTENT = ("modulesContent", "moduleContent")
_PRIORITY = 2**31 - 1
# Written by IoT Hub, or for it only.
_BESIDE = ("id", "targetCondition", "priority", "labels", "metrics", "content", *_CONTENT)
_OF_THE_HUB = ("schemaVersion", "systemMetrics", "createdTimeUtc", "lastUpdatedTimeUtc", "etag", "$schema", "$schema-template")


@dataclass(frozen=True)
class Envelope:
    """``content`` holds ``$edgeAgent``, ``$edgeHub`` and the modules' twins; the rest is what an automatic deployment says."""

    content: Part
    is_template: bool
    id: str | None = None
    target: str | None = None
    priority: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def is_iot_edge(document: object) -> bool:
    """Whether a parsed document has one of IoT Edge's shapes; then it is none of ours."""
    if not isinstance(document, dict):
        return False
    keys = {str(key).lower() for key in document}
    return bool(keys & {"modulescontent", "modulecontent", "content", "$edgeagent", "$schema-template"})


def open_envelope(document: object) -> Envelope:
    """Raises IotEdgeInvalid."""
    root = Part.of("$", document)
    if root.key_of("$edgeAgent"):
        return Envelope(root, is_template=False)
    labels = root.part("labels")
    if not all(isinstance(value, str) for value in labels.values.values()):
        raise wrong(labels.place, "a label's value is text", "Write it in quotes.")
    findings = root.unknown(*_BESIDE, *_OF_THE_HUB)
    if root.part("metrics").values:
        findings.append(
            note(root.at("metrics"), "metric queries are not kept", "`hedgerow device list` and /metrics tell the same.")
        )
    return Envelope(
        content=_content(root),
        is_template=root.key_of("$schema-template") is not None,
        id=root.text("id"),
        target=root.text("targetCondition"),
        priority=root.whole("priority", -_PRIORITY - 1, _PRIORITY),
        labels={key: str(value) for key, value in labels.values.items()},
        findings=tuple(findings),
    )


def _content(root: Part) -> Part:
    outer = root.part("content") if root.key_of("content") else root
    if outer.key_of("deviceContent"):
        raise wrong(outer.at("deviceContent"), "it configures devices, not modules", "Use a deployment with modulesContent.")
    names = [name for name in _CONTENT if outer.key_of(name)]
    if len(names) != 1:
        problem = "both modulesContent and moduleContent are there" if names else "there is no modulesContent"
        raise wrong(outer.place, problem, 'Write {"modulesContent": {"$edgeAgent": …, "$edgeHub": …}}.')
    return Part.of(outer.at(names[0]), outer.get(names[0]))
