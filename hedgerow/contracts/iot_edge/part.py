"""One object of the deployment and the place where it stands. Keys are found whatever their case, as IoT Edge's agent does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hedgerow.contracts.edge_finding import Finding, unknown_key
from hedgerow.contracts.iot_edge.errors import wrong


@dataclass(frozen=True)
class Part:
    """``place`` is a JSON path (``$.modulesContent``)."""

    place: str
    values: Mapping[str, object]

    @classmethod
    def of(cls, place: str, value: object) -> Part:
        """Raises IotEdgeInvalid for what is no object, or has a key twice in different case."""
        if not isinstance(value, dict):
            raise wrong(place, f"an object belongs here, not {_kind(value)}", "Write { … } there.")
        return cls(place, value)

    def key_of(self, name: str) -> str | None:
        """How ``name`` is written here. Raises IotEdgeInvalid when it is there twice."""
        found = [key for key in self.values if key.lower() == name.lower()]
        if len(found) > 1:
            raise wrong(self.place, f"the keys {found[0]!r} and {found[1]!r} are one to IoT Edge", "Keep one of them.")
        return found[0] if found else None

    def get(self, name: str) -> object:
        """The value, None where there is none."""
        key = self.key_of(name)
        return None if key is None else self.values[key]

    def at(self, name: str) -> str:
        """The place of a key."""
        return f"{self.place}.{self.key_of(name) or name}"

    def part(self, name: str) -> Part:
        """The object under a key, an empty one when it is not there (or null)."""
        found = self.get(name)
        return Part.of(self.at(name), {} if found is None else found)

    def text(self, name: str) -> str | None:
        """Raises IotEdgeInvalid for anything but text."""
        found = self.get(name)
        if found is None or isinstance(found, str):
            return found
        raise wrong(self.at(name), f"text belongs here, not {_kind(found)}", "Write it in quotes.")

    def word(self, name: str, allowed: Sequence[str]) -> str | None:
        """Text that is one of few, in any case."""
        found = self.text(name)
        if found is None or found.lower() in allowed:
            return None if found is None else found.lower()
        raise wrong(self.at(name), f"{found[:80]!r} is none of {', '.join(allowed)}", "Write one of them.")

    def whole(self, name: str, lowest: int | None, highest: int) -> int | None:
        """A whole number; ``lowest`` None: no lower bound. Raises IotEdgeInvalid."""
        found = self.get(name)
        if found is None:
            return None
        if isinstance(found, str) and found.strip().lstrip("-").isdecimal() and len(found) < 20:
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or found > highest or (lowest is not None and found < lowest):
            bounds = f"up to {highest}" if lowest is None else f"from {lowest} to {highest}"
            raise wrong(self.at(name), f"{str(found)[:40]} is no whole number {bounds}", "Correct it.")
        return found

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Every key with the object under it."""
        for key, value in self.values.items():
            yield key, Part.of(f"{self.place}.{key}", value)

    def unknown(self, *known: str) -> list[Finding]:
        """Findings for every key that is none of ``known``."""
        folded = {name.lower() for name in known}
        return [unknown_key(f"{self.place}.{key}", key, known) for key in self.values if key.lower() not in folded]


def _kind(value: object) -> str:
    kinds = {"NoneType": "null", "list": "a list", "dict": "an object", "str": "text", "bool": "true or false"}
    return kinds.get(type(value).__name__, "a number")
