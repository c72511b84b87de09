"""Names of IoT Edge in our grammar: ``TempSensor`` is ``tempsensor`` here, and keeps the other for people."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hedgerow.contracts.iot_edge.errors import wrong

_MODULE = re.compile(r"[A-Za-z0-9_-]{1,128}")
_OTHER = re.compile(r"[^a-z0-9._-]+")
_JOINT = re.compile(r"[._-]{2,}")


def our_name(text: str) -> str:
    """``text`` in our grammar: lower case, other characters and mixed joints as one dash. Empty when nothing is left."""
    folded = _OTHER.sub("-", text.lower())
    kept = _JOINT.sub(lambda found: found[0] if found[0] == "__" or set(found[0]) == {"-"} else "-", folded)
    return kept.strip("._-")[:128].strip("._-")


def module_names(ids: Iterable[str], place: str) -> dict[str, str]:
    """Our name of each module id. Raises IotEdgeInvalid for an id that IoT Edge forbids, and for two that would be one."""
    found: dict[str, str] = {}
    for identity in ids:
        name = our_name(identity) if _MODULE.fullmatch(identity) else ""
        if not name:
            raise wrong(f"{place}.{identity[:80]}", "this is no module id", "Use 1 to 128 of A-Z, a-z, 0-9, _ and -.")
        twin = next((other for other, taken in found.items() if taken == name), None)
        if twin is not None:
            raise wrong(f"{place}.{identity}", f"it is {name!r} here, and so is {twin!r}", "Rename one of the two modules.")
        found[identity] = name
    return found
