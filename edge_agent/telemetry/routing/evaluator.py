"""Whether a message fulfils a route's condition. Pure, and never raises: what cannot be worked out is undefined, which is no yes.

Logic is three-valued: ``false AND undefined`` is false, ``true OR undefined`` is true, anything else with undefined is undefined.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import assert_never

from edge_agent.telemetry.routing.functions import call, defined, divide, is_number, joined, remainder
from edge_agent.telemetry.routing.values import MISSING, UNDEFINED, MessageView, Value
from hedgerow.contracts.routes.tree import (
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

_ORDERS: dict[str, Callable[..., bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SUMS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": divide,
    "%": remainder,
}


def matches(condition: Expression | None, message: MessageView) -> bool:
    """True when the condition is true, or there is none."""
    return condition is None or evaluate(condition, message) is True


def evaluate(node: Expression, message: MessageView) -> Value:
    """The value of an expression for a message."""
    match node:
        case Binary():
            return _binary(node, message)
        case Unary():
            return _unary(node, message)
        case Call(function=function, arguments=arguments):
            return call(function, [evaluate(one, message) for one in arguments])
        case TwinChange(steps=steps):
            return message.has(steps)
        case _:
            return _leaf(node, message)


def _leaf(node: Constant | Undefined | Property | SystemProperty | BodyPath, message: MessageView) -> Value:
    match node:
        case Constant(value=value):
            return value
        case Undefined():
            return UNDEFINED
        case Property(name=name):
            return message.property(name)
        case SystemProperty():
            return message.system_property(node)
        case BodyPath():
            return message.body(node)
        case _:
            assert_never(node)


def _unary(node: Unary, message: MessageView) -> Value:
    if node.operator == "not":
        truth = _truth(node.operand, message)
        # NOT null is true, as IoT Edge has it.
        return truth if truth is UNDEFINED else not truth
    number = evaluate(node.operand, message)
    return -number if is_number(number) else UNDEFINED


def _binary(node: Binary, message: MessageView) -> Value:
    if node.operator in {"and", "or"}:
        return _logic(node, message)
    left = evaluate(node.left, message)
    if node.operator == "??":
        return evaluate(node.right, message) if left in (UNDEFINED, MISSING) else left
    right = evaluate(node.right, message)
    if node.operator in _SUMS:
        return _sum(node.operator, left, right)
    if node.operator == "||":
        return joined(left, right) if isinstance(left, str) and isinstance(right, str) else UNDEFINED
    return _compared(node.operator, left, right)


def _sum(sign: str, left: Value, right: Value) -> Value:
    if not (is_number(left) and is_number(right)):
        return UNDEFINED
    return defined(_SUMS[sign](left, right))


def _compared(sign: str, left: Value, right: Value) -> Value:
    if left is UNDEFINED or right is UNDEFINED:
        return UNDEFINED
    left = None if left is MISSING else left
    right = None if right is MISSING else right
    alike = _kind(left) is _kind(right)
    if sign in {"=", "!="}:
        return (alike and left == right) == (sign == "=")
    if not alike:
        return UNDEFINED
    if left is None:
        return sign in {"<=", ">="}
    return _ORDERS[sign](left, right)


def _kind(value: Value) -> type:
    return float if is_number(value) else type(value)


def _logic(node: Binary, message: MessageView) -> Value:
    # A chain at once: it may be longer than calls may be deep.
    truths: list[Value] = []
    rest: Expression = node
    while isinstance(rest, Binary) and rest.operator == node.operator:
        truths.append(_truth(rest.right, message))
        rest = rest.left
    truths.append(_truth(rest, message))
    decides = node.operator == "or"
    if not decides and None in truths:
        return None
    if any(truth is decides for truth in truths):
        return decides
    if UNDEFINED in truths:
        return UNDEFINED
    return None if all(truth is None for truth in truths) else not decides


def _truth(node: Expression, message: MessageView) -> Value:
    """True, False, UNDEFINED, or None for a literal null; a null of the body is no truth at all."""
    value = evaluate(node, message)
    if isinstance(value, bool):
        return value
    return None if value is None and _is_null(node) else UNDEFINED


def _is_null(node: Expression) -> bool:
    match node:
        case Constant(value=None):
            return True
        case Binary(operator="and", left=left, right=right):
            return _is_null(left) or _is_null(right)
        case Binary(operator="or" | "??", left=left, right=right):
            return _is_null(left) and _is_null(right)
        case _:
            return False
