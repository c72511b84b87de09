"""One table of settings per component: the frozen dataclass *is* the table.

A component declares ``@dataclass(frozen=True) class ServerSettings`` whose fields are made with :func:`setting`; env
names, ``--help``, docs pages and the checks all come from it. Only composition roots call :func:`load_settings`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from hedgerow.errors import InvalidSetting, UnknownSetting

S = TypeVar("S")
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


def setting(
    default: Any,  # noqa: ANN401 - mirrors dataclasses.field
    help: str,  # noqa: A002 - as argparse and click call it
    *,
    env: str | None = None,
    secret: bool = False,
    least: float | None = None,
) -> Any:  # noqa: ANN401 - mirrors dataclasses.field
    """Declare one setting. ``env`` defaults to ``HEDGEROW_`` + the field's name in capitals; ``least`` is a number's bound."""
    return dataclasses.field(default=default, metadata={"help": help, "env": env, "secret": secret, "least": least})


@dataclasses.dataclass(frozen=True)
class SettingRow:
    """One row of a settings table, as help texts and docs show it."""

    name: str
    env: str
    type_name: str
    default: object
    help: str
    secret: bool
    least: float | None = None

    @property
    def shown_default(self) -> str:
        """For help texts: empty where nothing is set unless somebody sets it, and for what nobody may see."""
        if self.secret or self.default is None or self.default is False or self.default == "":
            return ""
        if self.default is True:
            return "on"
        whole = isinstance(self.default, float) and self.default.is_integer()
        return f"{self.default:.0f}" if whole else str(self.default)


def rows(table: type[Any]) -> list[SettingRow]:
    """The settings of a table in declaration order."""
    hints = get_type_hints(table)
    return [
        SettingRow(
            name=field.name,
            env=field.metadata["env"] or f"HEDGEROW_{field.name.upper()}",
            type_name=_type_name(hints[field.name]),
            default=field.default,
            help=field.metadata["help"],
            secret=field.metadata["secret"],
            least=field.metadata["least"],
        )
        for field in dataclasses.fields(table)
    ]


def load_settings(table: type[S], environment: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> S:
    """Build a table from defaults < environment < overrides (flags; None means "not given").

    Raises InvalidSetting for a value of the wrong type, UnknownSetting (with a suggestion) for an unknown override.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    known = {row.name: row for row in rows(table)}
    for name in given.keys() - known.keys():
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(known)}."
        raise UnknownSetting(name=name, component=table.__name__, hint=hint)
    hints = get_type_hints(table)
    values: dict[str, object] = {}
    for name, row in known.items():
        if name in given:
            values[name] = _parse(given[name], hints[name], row, f"the option --{name.replace('_', '-')}")
        elif row.env in environment:
            values[name] = _parse(environment[row.env], hints[name], row, f"the environment variable {row.env}")
    return table(**values)


def _type_name(hint: object) -> str:
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint).replace("typing.", "")


def _parse(value: object, hint: Any, row: SettingRow, source: str) -> object:  # noqa: ANN401 - a type hint has no better type
    if not isinstance(value, str):
        return value
    try:
        parsed = _from_text(value, hint)
        if row.least is not None and isinstance(parsed, int | float) and parsed < row.least:
            raise ValueError(f"it must be {row.least:g} or more")
        return parsed
    except ValueError as problem:
        shown = "***" if row.secret else value
        raise InvalidSetting(name=row.name, value=shown, problem=str(problem), source=source) from None


def _from_text(text: str, hint: Any) -> object:  # noqa: ANN401 - a type hint has no better type
    if get_origin(hint) in (Union, UnionType):
        choices = [choice for choice in get_args(hint) if choice is not type(None)]
        return None if text == "" else _from_text(text, choices[0])
    if get_origin(hint) is not None and all(isinstance(choice, str) for choice in get_args(hint)):
        if text not in get_args(hint):
            raise ValueError(f"use one of {', '.join(get_args(hint))}")
        return text
    if hint is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ValueError("use true or false")
        return text.lower() in _TRUE
    if hint is Path:
        return Path(text)
    if hint in (int, float):
        return _number(text, hint)
    return text


def _number(text: str, hint: type[int] | type[float]) -> int | float:
    # Python's own words would repeat the text, which may be a secret.
    try:
        number = hint(text)
    except ValueError:
        raise ValueError("use a whole number" if hint is int else "use a number") from None
    if hint is float and not math.isfinite(number):
        raise ValueError("use a finite number")
    return number
