"""The text of a condition, with no more brackets than it needs."""

from __future__ import annotations

import math
from typing import assert_never

from hedgerow.contracts.routes.tree import (
    LEVELS,
    Binary,
    BodyPath,
    Call,
    Constant,
    Expression,
    Property,
    SystemProperty,
    TwinChange,
    Unary,
    Undefined,
)
from hedgerow.contracts.routes.types import TWIN_CHANGE

_LEVEL_OF = {operator: level for level, operators in enumerate(LEVELS) for operator in operators}
# Above what a double holds, so that it is read as infinity again.
_INFINITY = "1e999"
# Whole numbers up to here are written without an exponent.
_PLAIN_MAX = 1e15


def format_condition(node: Expression) -> str:
    """Text that ``parse_condition`` reads as ``node``."""
    match node:
        case Unary(operator=operator, operand=operand):
            return f"{operator.upper()} ({format_condition(operand)})"
        case Binary():
            return _binary(node)
        case Call(function=function, arguments=arguments):
            return f"{function}({', '.join(map(format_condition, arguments))})"
        case TwinChange(steps=steps):
            return f"{TWIN_CHANGE}({_path(steps)})"
        case _:
            return _leaf(node)


def _leaf(node: Constant | Undefined | Property | SystemProperty | BodyPath) -> str:
    match node:
        case Constant(value=value):
            return _constant(value)
        case Undefined():
            return "undefined"
        case Property(name=name):
            return name
        case SystemProperty(name=name, only=only):
            return _dollar(name, only=only)
        case BodyPath(steps=steps, only=only):
            path = _path(steps)
            return _dollar(f"body{path}" if path.startswith("[") else f"body.{path}", only=only)
        case _:
            assert_never(node)


def _binary(node: Binary) -> str:
    level = _LEVEL_OF[node.operator]
    left, right = _operand(node.left, level), _operand(node.right, level + 1)
    return f"{left} {node.operator.upper()} {right}"


def _operand(node: Expression, level: int) -> str:
    text = format_condition(node)
    return f"({text})" if isinstance(node, Binary) and _LEVEL_OF[node.operator] < level else text


def _constant(value: bool | float | str | None) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case _:
            return _number(value)


def _number(value: float) -> str:
    if math.isinf(value):
        return _INFINITY if value > 0 else f"-{_INFINITY}"
    return f"{value:.0f}" if value.is_integer() and abs(value) < _PLAIN_MAX else repr(value)


def quoted(text: str) -> str:
    """A string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _dollar(name: str, *, only: bool) -> str:
    return f"{{${name}}}" if only else f"${name}"


def _path(steps: tuple[str | int, ...]) -> str:
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
