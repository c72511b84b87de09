"""What a route's condition works on: the values, and one message as a condition sees it."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from hedgerow.contracts.routes.text import format_condition
from hedgerow.contracts.routes.tree import BodyPath, SystemProperty

_JSON_TYPES = (bool, str)


class Nothing(enum.Enum):
    """``UNDEFINED`` makes a condition undefined. ``MISSING`` is what a body does not have: it compares like null."""

    UNDEFINED = "undefined"
    MISSING = "missing"


UNDEFINED, MISSING = Nothing.UNDEFINED, Nothing.MISSING
# None is null.
Value = bool | float | str | Nothing | None


class MessageView:
    """Properties (their names in any case) and the JSON body of one message; the body is parsed when it is first asked for."""

    def __init__(self, body: str, properties: Mapping[str, str], system: Mapping[str, str]) -> None:
        self._text = body
        self._properties = {name.lower(): value for name, value in properties.items()}
        self._system = {name.lower(): value for name, value in system.items()}
        self._dollars = any(name.startswith("$") for name in self._properties)
        self._body: object = UNDEFINED
        self._parsed = False

    def property(self, name: str) -> Value:
        """An application property's text."""
        return self._properties.get(name.lower(), UNDEFINED)

    def system_property(self, node: SystemProperty) -> Value:
        """A system property's text; an application property of the same name, dollar included, goes first."""
        if self._dollars and not node.only and (hidden := self._properties.get(f"${node.name}".lower())) is not None:
            return hidden
        return self._system.get(node.name.lower(), UNDEFINED)

    def body(self, node: BodyPath) -> Value:
        """The value at a path; an application property that is called like the path goes first."""
        if self._dollars and not node.only:
            hidden = self._properties.get(format_condition(node).lower())
            if hidden is not None:
                return hidden
        return self.at(node.steps)

    def at(self, steps: tuple[str | int, ...]) -> Value:
        """The body's value at ``steps``: MISSING when there is none, UNDEFINED for an object, an array or no JSON at all."""
        found = self._json()
        if found is UNDEFINED:
            return UNDEFINED
        for step in steps:
            if not _has(found, step):
                return MISSING
            found = found[step]  # type: ignore[index]  # _has has looked
        return _leaf(found)

    def has(self, steps: tuple[str | int, ...]) -> bool:
        """Whether there is something other than null at ``steps``."""
        return self.at(steps) not in {MISSING, None} and self._json() is not UNDEFINED

    def _json(self) -> object:
        if not self._parsed:
            self._parsed = True
            try:
                self._body = msgspec.json.decode(self._text)
            except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
                self._body = UNDEFINED
        return self._body


def _has(found: object, step: str | int) -> bool:
    if isinstance(found, dict):
        return isinstance(step, str) and step in found
    return isinstance(found, list) and isinstance(step, int) and step < len(found)


def _leaf(found: object) -> Value:
    if found is None or isinstance(found, _JSON_TYPES):
        return found
    if isinstance(found, int | float):
        return as_float(found)
    return UNDEFINED


def as_float(number: float) -> float:
    """A number of any size as a double, as JSON readers elsewhere take it."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
