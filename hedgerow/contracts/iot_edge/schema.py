"""Schema versions, as IoT Edge's agent and hub check them (``ValidateSchemaVersion``, ``EdgeHubConfigParser``)."""

from __future__ import annotations

import re

from hedgerow.contracts.iot_edge.errors import IotEdgeSchemaUnknown
from hedgerow.contracts.iot_edge.part import Part

_VERSION = re.compile(r"1(?:\.(\d{1,4}))?(?:\.\d{1,4}){0,2}")
NEWEST_OF_AGENT, NEWEST_OF_HUB = 1, 3


def minor_version(part: Part, newest: int) -> int:
    """``y`` of ``schemaVersion`` 1.y. Raises IotEdgeSchemaUnknown for none, another major one, or a newer one."""
    written = part.get("schemaVersion")
    text = "" if written is None else str(written)
    found = _VERSION.fullmatch(text)
    minor = int(found[1] or 0) if found else newest + 1
    if minor > newest:
        raise IotEdgeSchemaUnknown(found=text[:40] or "none", place=part.place, supported=f"1.0 to 1.{newest}")
    return minor
