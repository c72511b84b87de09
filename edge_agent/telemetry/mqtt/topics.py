"""The local hub's topics: what a module means by publishing to one, which ones it may read, and where its inputs go.

Each module has topics of its own, so the short forms need no name in them: ``telemetry``, ``telemetry/STREAM``,
``outputs/NAME``, ``inputs/NAME``, ``twin/desired``, ``twin/desired/patch``, ``twin/reported``, ``twin/reported/patch``,
``methods/NAME/REQUEST``, ``methods/answers/REQUEST/STATUS``, ``heartbeat``. Beside them IoT Edge's
``devices/DEVICE/modules/MODULE/messages/events/PROPERTIES`` and ``devices/DEVICE/modules/MODULE/inputs/NAME/PROPERTIES``,
with properties as in a URL's query (``$.on`` is the output).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from edge_agent.errors import MqttProtocolError
from edge_agent.telemetry.mqtt.codec import filter_matches

TWIN_DESIRED, TWIN_PATCH = "twin/desired", "twin/desired/patch"
TOPIC_MAX = 8192
PROPERTIES_MAX = 64
_BAD_TOPIC, _NOT_AUTHORIZED, _NO_SHARED = 0x90, 0x87, 0x9E
# What a MethodAnswer may say.
_STATUS = re.compile(r"[1-5][0-9]{2}", re.ASCII)
# How IoT Edge abbreviates properties of the protocol in a topic.
_SYSTEM: Mapping[str, str] = {
    "$.mid": "messageId",
    "$.cid": "correlationId",
    "$.ct": "contentType",
    "$.ce": "contentEncoding",
    "$.uid": "userId",
    "$.on": "outputName",
    "$.exp": "absoluteExpiryTimeUtc",
}
_ABBREVIATED = {name: short for short, name in _SYSTEM.items()}
OUTPUT, MESSAGE_ID = "outputName", "messageId"


@dataclass(frozen=True)
class Identity:
    """Who publishes: the module by our name, and every name (lower case) under which it and this device are known."""

    module: str
    module_names: frozenset[str]
    device_names: frozenset[str]

    def own(self, levels: list[str]) -> bool:
        """Whether a topic's levels begin with ``devices/DEVICE/modules/MODULE`` of this module."""
        return (
            levels[0::2][:2] == ["devices", "modules"]
            and len(levels) >= 4
            and levels[1].lower() in self.device_names
            and levels[3].lower() in self.module_names
        )


@dataclass(frozen=True)
class Telemetry:
    """A message for the buffer."""

    stream: str | None = None
    output: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportedTwin:
    """The module's reported properties, all of them or a merge patch."""

    whole: bool


@dataclass(frozen=True)
class MethodAnswer:
    """The answer to a direct method."""

    request: str
    status: int


@dataclass(frozen=True)
class Heartbeat:
    """The module says that it is well."""


Meaning = Telemetry | ReportedTwin | MethodAnswer | Heartbeat


def meaning(topic: str, me: Identity) -> Meaning:
    """What publishing to ``topic`` means. Raises MqttProtocolError with a reason code."""
    if len(topic) > TOPIC_MAX:
        raise MqttProtocolError(problem=f"a topic of {len(topic)} characters, at most {TOPIC_MAX} are taken", code=_BAD_TOPIC)
    match topic.split("/"):
        case ["telemetry"]:
            return Telemetry()
        case ["telemetry", stream]:
            return Telemetry(stream=stream)
        case ["outputs", output]:
            return Telemetry(output=output)
        case ["twin", "reported"] | ["twin", "reported", "patch"] as levels:
            return ReportedTwin(whole=len(levels) == 2)
        case ["heartbeat"]:
            return Heartbeat()
        case ["methods", "answers", request, status] if _STATUS.fullmatch(status):
            return MethodAnswer(request, int(status))
        case ["devices", *_] as levels if levels[4:6] == ["messages", "events"] and len(levels) >= 6:
            return _iot_edge(levels, me)
    raise MqttProtocolError(problem=f"topic {topic[:80]!r} has no meaning here", code=_BAD_TOPIC)


def _iot_edge(levels: list[str], me: Identity) -> Telemetry:
    if not me.own(levels):
        raise MqttProtocolError(problem=f"module {me.module} may not speak for {'/'.join(levels)[:80]!r}", code=_NOT_AUTHORIZED)
    properties, system = read_bag("/".join(levels[6:]))
    return Telemetry(output=system.get(OUTPUT), properties=properties, system=system)


def read_bag(bag: str) -> tuple[dict[str, str], dict[str, str]]:
    """The application's properties and the protocol's of ``a=b&%24.mid=1``. Raises MqttProtocolError when there are too many."""
    return sort_properties((unquote(name), unquote(value)) for name, _, value in (part.partition("=") for part in bag.split("&")))


def sort_properties(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """``(application, protocol)``; unknown names with a dollar sign are the protocol's and dropped."""
    properties: dict[str, str] = {}
    system: dict[str, str] = {}
    for name, value in pairs:
        if name in _SYSTEM:
            system[_SYSTEM[name]] = value
        elif name and not name.startswith("$."):
            properties[name] = value
        if len(properties) > PROPERTIES_MAX:
            raise MqttProtocolError(problem=f"more than {PROPERTIES_MAX} properties", code=_BAD_TOPIC)
    return properties, system


def write_bag(properties: Mapping[str, str], system: Mapping[str, str]) -> str:
    """The same back; ``system`` may also hold names that are abbreviated already."""
    pairs = {**{abbreviated(name): value for name, value in system.items()}, **properties}
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs.items())


def abbreviated(name: str) -> str:
    """IoT Edge's short form of a protocol property; what has none stays as it is."""
    return _ABBREVIATED.get(name, name)


def may_read(pattern: str, me: Identity) -> int:
    """0 when a module may subscribe to ``pattern``, else MQTT 5's reason code."""
    if pattern.startswith("$share/"):
        return _NO_SHARED
    levels = pattern.split("/")
    if len(pattern) > TOPIC_MAX:
        return _NOT_AUTHORIZED
    if me.own(levels):
        return 0 if levels[4:5] == ["inputs"] and len(levels) >= 6 else _NOT_AUTHORIZED
    own = levels[0] in ("inputs", "methods", "twin") and len(levels) >= 2
    return 0 if own else _NOT_AUTHORIZED


def input_topic(patterns: Mapping[str, int], name: str) -> tuple[str, int, bool] | None:
    """``(topic, QoS, whether properties belong into the topic)`` by which input ``name`` is delivered; None: not subscribed."""
    short = f"inputs/{name}"
    for pattern, qos in patterns.items():
        if filter_matches(pattern, short):
            return short, qos, False
        levels = pattern.split("/")
        if levels[0] == "devices":
            long = "/".join([*levels[:4], "inputs", name])
            if filter_matches(pattern, f"{long}/"):
                return long, qos, True
    return None


def subscribed(patterns: Mapping[str, int], topic: str) -> int | None:
    """The QoS of the first subscription that ``topic`` matches; None without one."""
    return next((qos for pattern, qos in patterns.items() if filter_matches(pattern, topic)), None)
