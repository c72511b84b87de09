"""``properties.desired`` of one module of the deployment, whole or (in layered deployments) as flattened keys.

``{"properties.desired": {…}}`` stands for all of it; ``{"properties.desired.modules.pump": {…}}`` for one thing in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hedgerow.contracts.iot_edge.errors import wrong
from hedgerow.contracts.iot_edge.part import Part

_ROOT = "properties.desired"


@dataclass(frozen=True)
class Desired:
    """``whole`` is the object under ``properties.desired``, ``patches`` are paths below it with what they set."""

    place: str
    whole: Part | None
    patches: tuple[tuple[tuple[str, ...], object], ...] = ()

    @property
    def is_layer(self) -> bool:
        return self.whole is None

    def merged(self) -> dict[str, object]:
        """All of it as one object. Raises IotEdgeInvalid when two paths contradict each other."""
        found: dict[str, object] = dict(self.whole.values) if self.whole else {}
        for path, value in self.patches:
            here = found
            for step in path[:-1]:
                inner = here.setdefault(step, {})
                if not isinstance(inner, dict):
                    raise _twice(self.place, path)
                here = inner
            if path[-1] in here:
                raise _twice(self.place, path)
            here[path[-1]] = value
        return found


def read_desired(part: Part) -> Desired:
    """Raises IotEdgeInvalid."""
    whole: Part | None = None
    patches: list[tuple[tuple[str, ...], object]] = []
    for key, value in part.values.items():
        path = tuple(key.split("."))
        if key.lower() == _ROOT:
            whole = Part.of(f"{part.place}.{key}", value)
        elif key.lower().startswith(f"{_ROOT}.") and all(path):
            patches.append((path[2:], value))
        elif key.lower() == "properties" and isinstance(value, dict):
            whole = Part.of(f"{part.place}.{key}", value).part("desired")
        else:
            raise wrong(f"{part.place}.{key[:80]}", "only properties.desired is set by deployments", f"Write {_ROOT} there.")
    if whole is not None and patches:
        raise wrong(part.place, "it has properties.desired and also paths below it", "Write either all of it, or paths.")
    return Desired(part.place, whole, tuple(patches))


def _twice(place: str, path: tuple[str, ...]) -> Exception:
    return wrong(f"{place}.{_ROOT}.{'.'.join(path)}", "two keys set the same thing", "Keep one of them.")
