"""``$edgeHub``: routes, and how long messages are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hedgerow.contracts.edge import Route, TelemetryPolicy
from hedgerow.contracts.edge_finding import Finding, note, warning
from hedgerow.contracts.iot_edge.errors import wrong
from hedgerow.contracts.iot_edge.part import Part
from hedgerow.contracts.iot_edge.properties import Desired
from hedgerow.contracts.iot_edge.schema import NEWEST_OF_HUB, minor_version

_HIGHEST_TTL = 4_294_967_295
_ROUTE_CHARACTERS = 4096
_FORBIDDEN = frozenset(".$# \n")


@dataclass(frozen=True)
class HubPart:
    """What ``$edgeHub`` asks for, in our documents."""

    routes: Mapping[str, Route] = field(default_factory=dict)
    telemetry: TelemetryPolicy = field(default_factory=TelemetryPolicy)
    findings: list[Finding] = field(default_factory=list)


def read_hub_part(desired: Desired) -> HubPart:
    """Raises IotEdgeInvalid, IotEdgeSchemaUnknown."""
    findings: list[Finding] = []
    properties = Part(f"{desired.place}.properties.desired", desired.merged())
    # A layer rests on a base, which says its version.
    minor = minor_version(properties, NEWEST_OF_HUB) if desired.whole is not None else 1
    known = ("schemaVersion", "routes", "storeAndForwardConfiguration", "mqttBroker", "integrity")
    findings += properties.unknown(*known)
    if properties.get("mqttBroker"):
        findings.append(
            warning(
                properties.at("mqttBroker"),
                "IoT Edge's own MQTT broker is not here",
                "Modules publish to the agent's local MQTT.",
            )
        )
    routes: dict[str, Route] = {}
    listed = properties.part("routes")
    for name, value in listed.values.items():
        if not 0 < len(name) <= 128 or _FORBIDDEN & set(name):
            raise wrong(f"{listed.place}.{name[:80]}", "this is no name of a route", "Leave out dots, $, # and blanks.")
        route = _route(f"{listed.place}.{name}", value, minor, findings)
        if route is not None:
            routes[name] = route
    return HubPart(routes, _telemetry(properties.part("storeAndForwardConfiguration"), findings), findings)


def _route(place: str, value: object, minor: int, findings: list[Finding]) -> Route | None:
    if isinstance(value, str):
        return _text(place, value, None, 0, findings)
    part = Part.of(place, value)
    if minor < 1:
        findings.append(
            warning(place, "IoT Edge takes a route as an object from schemaVersion 1.1 on", "Write schemaVersion 1.1.")
        )
    findings += part.unknown("route", "priority", "timeToLiveSecs")
    priority, seconds = part.whole("priority", 0, 9), part.whole("timeToLiveSecs", 0, _HIGHEST_TTL)
    return _text(place, part.text("route") or "", priority, seconds or 0, findings)


def _text(place: str, text: str, priority: int | None, seconds: int, findings: list[Finding]) -> Route | None:
    if not text.strip():
        findings.append(note(place, "the route is empty and left out"))
        return None
    if len(text) > _ROUTE_CHARACTERS:
        raise wrong(place, f"it has more than {_ROUTE_CHARACTERS} characters", "Shorten it.")
    return Route(route=text.strip(), priority=priority, time_to_live_s=seconds)


def _telemetry(part: Part, findings: list[Finding]) -> TelemetryPolicy:
    findings += part.unknown("timeToLiveSecs", "storeLimits")
    if part.get("storeLimits"):
        findings.append(
            note(part.at("storeLimits"), "it is passed over; the device bounds its buffer", "See the agent's --quota-bytes.")
        )
    seconds = part.whole("timeToLiveSecs", None, _HIGHEST_TTL)
    if seconds is None or seconds < 0:
        return TelemetryPolicy()
    if seconds == 0:
        findings.append(
            warning(
                part.at("timeToLiveSecs"), "0 drops what cannot be sent at once; it is 1 s here", "Write -1 for never, or 7200."
            )
        )
    return TelemetryPolicy(time_to_live_s=max(1, seconds))
