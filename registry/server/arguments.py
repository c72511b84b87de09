"""The query string: each operation says which arguments it takes, they are parsed here, and a handler asks for them by name.

An argument that nobody declared is refused, so that a misspelt filter never answers with everything.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar, cast

import msgspec
from flask import g
from werkzeug.datastructures import MultiDict

from hedgerow.contracts.document import Instant
from hedgerow.contracts.names import is_digest
from registry.server.errors import InvalidArgument, RepeatedArgument, UnknownArgument

V = TypeVar("V")

# What a 64-bit column can be compared with.
_LARGEST = 2**63 - 1
_DIGITS = 19


@dataclass(frozen=True)
class QueryField:
    """One argument of the query string. ``repeated``: may be given several times; ``choices``: takes one of these words."""

    name: str
    meaning: str
    kind: Literal["text", "integer", "boolean", "instant"] = "text"
    repeated: bool = False
    choices: tuple[str, ...] = ()
    least: int = 0
    most: int = _LARGEST


def take(declared: Sequence[QueryField], given: MultiDict[str, str]) -> None:
    """Parse ``given`` for the handler of this request. Raises UnknownArgument, RepeatedArgument, InvalidArgument."""
    g.arguments = parse(declared, given)


def parse(declared: Sequence[QueryField], given: MultiDict[str, str]) -> dict[str, list[object]]:
    """The values of every declared argument, in the order in which they were given."""
    known = {field.name: field for field in declared}
    for name in given:
        if name not in known:
            raise UnknownArgument(name=name[:80], hint=_hint(name, sorted(known)))
    return {name: _values(field, given.getlist(name)) for name, field in known.items()}


def text(name: str) -> str | None:
    """The argument ``name``; None when it is absent or empty."""
    return _one(name, str) or None


def texts(name: str) -> list[str]:
    """Every value of the repeated argument ``name``."""
    return [str(value) for value in _given(name)]


def integer(name: str) -> int | None:
    """The argument ``name``; None when it is absent."""
    return _one(name, int)


def flag(name: str, *, otherwise: bool = False) -> bool:
    """The argument ``name``, ``true`` or ``false``; ``otherwise`` when it is absent."""
    found = _one(name, bool)
    return otherwise if found is None else found


def instant(name: str) -> datetime | None:
    """The argument ``name``, a time with offset; None when it is absent."""
    return _one(name, datetime)


def digest(name: str) -> str | None:
    """The argument ``name``, a digest; None when it is absent. Raises InvalidArgument."""
    found = text(name)
    if found is not None and not is_digest(found):
        raise InvalidArgument(name=name, value=found[:80], hint="Use sha256: and 64 hexadecimal digits.")
    return found


def _one(name: str, kind: type[V]) -> V | None:
    found = _given(name)
    if found and not isinstance(found[0], kind):
        raise TypeError(f"the argument {name} is not declared as {kind.__name__}")
    return cast(V, found[0]) if found else None


def _given(name: str) -> list[object]:
    # A name that the operation does not declare is a mistake in the handler, and every call of it says so.
    return cast(Mapping[str, list[object]], g.arguments)[name]


def _values(field: QueryField, given: list[str]) -> list[object]:
    if len(given) > 1 and not field.repeated:
        raise RepeatedArgument(name=field.name)
    return [_READERS[field.kind](field, value) for value in given]


def _text(field: QueryField, value: str) -> str:
    if field.choices and value not in field.choices:
        raise InvalidArgument(name=field.name, value=value[:80], hint=f"Use one of: {', '.join(field.choices)}.")
    return value


def _integer(field: QueryField, value: str) -> int:
    # int() would take "+1", "1_000" and the digits of every alphabet.
    if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS and field.least <= int(value) <= field.most):
        raise InvalidArgument(name=field.name, value=value[:80], hint=f"Use a number from {field.least} to {field.most}.")
    return int(value)


def _boolean(field: QueryField, value: str) -> bool:
    if value not in ("true", "false"):
        raise InvalidArgument(name=field.name, value=value[:80], hint="Use true or false.")
    return value == "true"


def _instant(field: QueryField, value: str) -> datetime:
    try:
        # "+02:00" unescaped arrives as " 02:00".
        # In UTC: what lies within an offset of the first or last year there is cannot be compared with anything.
        return msgspec.convert(value.replace(" ", "+"), Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        hint = "Use a time with its offset, for example 2026-01-31T12:00:00Z."
        raise InvalidArgument(name=field.name, value=value[:80], hint=hint) from None


_READERS: dict[str, Callable[[QueryField, str], object]] = {
    "text": _text,
    "integer": _integer,
    "boolean": _boolean,
    "instant": _instant,
}


def _hint(name: str, known: list[str]) -> str:
    if not known:
        return "This operation takes no arguments."
    near = difflib.get_close_matches(name[:80], known, n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return f"{meant}Known here: {', '.join(known)}."
