"""What a module says about a message beside its body, over HTTP: query and headers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from edge_agent.errors import MessageRefused

PROPERTIES_MAX = 64
PROPERTIES_LENGTH_MAX = 8192
OUTPUT_LENGTH_MAX = 256
# As in IoT Hub's own HTTP interface, so that a client of it needs another address only.
_APPLICATION = "iothub-app-"
_SYSTEM: Mapping[str, str] = {
    "content-type": "contentType",
    "content-encoding": "contentEncoding",
    "iothub-contenttype": "contentType",
    "iothub-contentencoding": "contentEncoding",
    "iothub-messageid": "messageId",
    "iothub-correlationid": "correlationId",
    "iothub-userid": "userId",
}


@dataclass(frozen=True)
class Attributes:
    """What ``ModuleMessage`` has beside body, module and time."""

    output: str | None = None
    stream: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)


def attributes(query: Mapping[str, list[str]], headers: Mapping[str, str], names: Collection[str]) -> Attributes:
    """Read a request; ``headers`` by names in lower case, ``names`` as they were written. Raises MessageRefused."""
    output = _first(query, "output")
    if output is not None and len(output) > OUTPUT_LENGTH_MAX:
        raise MessageRefused(problem=f"its output's name is longer than {OUTPUT_LENGTH_MAX} characters")
    found = {name[len(_APPLICATION) :]: _text(headers[name.lower()]) for name in names if name.lower().startswith(_APPLICATION)}
    for bag in query.get("properties", []):
        found.update(_bag(bag))
    if len(found) > PROPERTIES_MAX or sum(len(name) + len(value) for name, value in found.items()) > PROPERTIES_LENGTH_MAX:
        raise MessageRefused(
            problem=f"it has more than {PROPERTIES_MAX} properties or {PROPERTIES_LENGTH_MAX} characters of them"
        )
    system = {known: _text(value) for name, known in _SYSTEM.items() if (value := headers.get(name))}
    return Attributes(output, _first(query, "stream"), found, system)


def _first(query: Mapping[str, list[str]], name: str) -> str | None:
    given = query.get(name)
    return given[0] if given else None


def _bag(text: str) -> dict[str, str]:
    """``a=b&c=d``, each part percent-encoded once more where it needs it."""
    try:
        return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=PROPERTIES_MAX))
    except ValueError as problem:
        raise MessageRefused(problem=f"its properties are not NAME=VALUE&NAME=VALUE: {problem}") from None


def _text(value: str) -> str:
    """Python reads header bytes as Latin-1; who writes them means UTF-8."""
    return value if value.isascii() else value.encode("latin-1", "replace").decode(errors="replace")
