"""Deployment templates (``deployment.template.json``): ``${NAME}`` in their text, filled in with what the operator gave."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_VARIABLE = re.compile(r"\$\{([^${}\n]{1,200})\}")
# What is filled in when it is given; bare names are too common a text to insist upon.
_GIVEN = re.compile(rf"{_VARIABLE.pattern}|\$([A-Z_][A-Z0-9_]{{0,199}})")


def fill_in(value: object, variables: Mapping[str, str]) -> object:
    """``value`` with each ``${NAME}`` and ``$NAME`` replaced whose NAME is given; what was filled in is not read again."""
    if isinstance(value, str):
        return _GIVEN.sub(lambda found: variables.get(found[1] or found[2], found[0]), value)
    if isinstance(value, dict):
        return {str(key): fill_in(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill_in(inner, variables) for inner in value]
    return value


def names_in(value: object) -> set[str]:
    """The names of all variables in the texts of ``value``."""
    return {found for text in _texts(value) for found in _VARIABLE.findall(text)}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
