"""What a route says, as values. Made by ``route.py`` from text, read by whoever routes, lints or shows it."""

from __future__ import annotations

from typing import Literal

import msgspec

# Binary operators by how tightly they bind, loosest first; each is left-associative (IoT Edge's Condition.g4).
LEVELS: tuple[tuple[str, ...], ...] = (
    ("??",),
    ("or",),
    ("and",),
    ("=", "!=", "<>"),
    ("<", "<=", ">", ">="),
    ("+", "-", "||"),
    ("*", "/", "%"),
)
UnaryOperator = Literal["-", "not"]
BinaryOperator = Literal["??", "or", "and", "=", "!=", "<", "<=", ">", ">=", "+", "-", "||", "*", "/", "%"]


class Constant(msgspec.Struct, frozen=True, tag=True):
    """``true``, ``'text'``, a number, or None for ``null``."""

    value: bool | float | str | None


class Undefined(msgspec.Struct, frozen=True, tag=True):
    """The literal ``undefined``."""


class Property(msgspec.Struct, frozen=True, tag=True):
    """An application property of the message; letters' case does not count."""

    name: str


class SystemProperty(msgspec.Struct, frozen=True, tag=True):
    """``$name``; ``only`` is ``{$name}``, which an application property called ``$name`` does not hide."""

    name: str
    only: bool = False


class BodyPath(msgspec.Struct, frozen=True, tag=True):
    """``$body.a[0].b``: names and places in the message's JSON. ``only`` as in SystemProperty."""

    steps: tuple[str | int, ...]
    only: bool = False


class Unary(msgspec.Struct, frozen=True, tag=True):
    """``- x`` or ``NOT x``; both bind tighter than every binary operator."""

    operator: UnaryOperator
    operand: Expression


class Binary(msgspec.Struct, frozen=True, tag=True):
    """``left operator right``."""

    operator: BinaryOperator
    left: Expression
    right: Expression


class Call(msgspec.Struct, frozen=True, tag=True):
    """A builtin function, its name in lower case."""

    function: str
    arguments: tuple[Expression, ...]


class TwinChange(msgspec.Struct, frozen=True, tag=True):
    """``twin_change_includes(properties.desired.x)``: whether a twin notification has something at ``steps``."""

    steps: tuple[str | int, ...]


Expression = Constant | Undefined | Property | SystemProperty | BodyPath | Unary | Binary | Call | TwinChange


class Upstream(msgspec.Struct, frozen=True, tag=True):
    """``$upstream``: the hub."""


class ModuleInput(msgspec.Struct, frozen=True, tag=True):
    """``BrokeredEndpoint("/modules/MODULE/inputs/INPUT")``; the names as they stand in the route."""

    module: str
    input: str


class RouteRule(msgspec.Struct, frozen=True, kw_only=True):
    """``FROM source [WHERE condition] INTO sink``; ``source`` is the path's levels, ``*`` among them."""

    source: tuple[str, ...]
    condition: Expression | None = None
    sink: Upstream | ModuleInput


class RouteMistake(msgspec.Struct, frozen=True, kw_only=True):
    """Where a route's text goes wrong: ``at`` counts characters from 0. ``what`` and ``hint`` are sentences for its author."""

    at: int
    what: str
    hint: str
