"""The builtin functions of route conditions. Every one takes any values and gives UNDEFINED where IoT Edge's does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeGuard

from edge_agent.telemetry.routing.values import MISSING, UNDEFINED, Value
from hedgerow.contracts.routes.types import CONCAT, FUNCTIONS

_INFINITY = float("inf")
# What .NET's NumberStyles.Any takes: blanks, a sign on either side or brackets, thousands' commas, an exponent.
_NUMBER = re.compile(r"[0-9][0-9,]*(\.[0-9]*)?([eE][+-]?[0-9]{1,6})?|\.[0-9]+([eE][+-]?[0-9]{1,6})?")
_NUMBER_LENGTH_MAX = 400
# Far above what a message has: a route may name a long text of its body hundreds of times.
TEXT_LENGTH_MAX = 1_000_000


def call(function: str, arguments: Sequence[Value]) -> Value:
    """The function's value; UNDEFINED for arguments that it does not take."""
    if len(arguments) not in _COUNTS.get(function, ()) and function != CONCAT:
        return UNDEFINED
    if function in _ANY:
        return _ANY[function](arguments[0])
    if any(one is UNDEFINED or one is MISSING or one is None for one in arguments):
        return UNDEFINED
    numbers = [one for one in arguments if is_number(one)]
    texts = [one for one in arguments if isinstance(one, str)]
    if function in _NUMBERS and len(numbers) == len(arguments):
        return defined(_NUMBERS[function](*numbers))
    if function in _TEXTS and len(texts) == len(arguments):
        return _TEXTS[function](*texts)
    if function == "as_number":
        return numbers[0] if numbers else to_number(texts[0]) if texts else UNDEFINED
    if function == "substring" and len(texts) == 1 and isinstance(arguments[0], str):
        return _substring(texts[0], *numbers) if len(numbers) == len(arguments) - 1 else UNDEFINED
    return UNDEFINED


def is_number(value: Value) -> TypeGuard[float]:
    """True for what a condition calls a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def defined(number: float) -> Value:
    """NaN is undefined."""
    return UNDEFINED if math.isnan(number) else number


def joined(*texts: str) -> Value:
    """One text; UNDEFINED when it would be longer than TEXT_LENGTH_MAX."""
    return "".join(texts) if sum(map(len, texts)) <= TEXT_LENGTH_MAX else UNDEFINED


def to_number(text: str) -> Value:
    """The number that a text states, UNDEFINED when it states none."""
    bare = text.strip()
    negative = False
    if bare.startswith("(") and bare.endswith(")"):
        bare, negative = bare[1:-1].strip(), True
    elif bare[:1] in {"+", "-"}:
        bare, negative = bare[1:].strip(), bare[0] == "-"
    elif bare[-1:] in {"+", "-"}:
        bare, negative = bare[:-1].strip(), bare[-1] == "-"
    if len(bare) > _NUMBER_LENGTH_MAX or not _NUMBER.fullmatch(bare):
        return UNDEFINED
    number = float(bare.replace(",", ""))
    return -number if negative else number


def divide(left: float, right: float) -> float:
    """As IEEE 754 has it: by zero is infinity, or NaN."""
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(_INFINITY, left) * math.copysign(1.0, right)


def remainder(left: float, right: float) -> float:
    """Of the division towards zero, with the sign of ``left``."""
    try:
        return math.fmod(left, right)
    except ValueError:
        return math.nan


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        odd = exponent % 2 == 1
        return -_INFINITY if base < 0 and odd else _INFINITY
    except ValueError:
        return _INFINITY if base == 0 else math.nan


def _exp(exponent: float) -> float:
    try:
        return math.exp(exponent)
    except OverflowError:
        return _INFINITY


def _whole(rounded: Callable[[float], int]) -> Callable[[float], float]:
    return lambda number: number if math.isinf(number) else float(rounded(number))


def _substring(text: str, start: float, length: float | None = None) -> Value:
    if length is None:
        return text[int(start) :] if 0 <= start <= len(text) else UNDEFINED
    if not (0 <= start < len(text) and 0 <= length <= len(text) - start):
        return UNDEFINED
    return text[int(start) : int(start) + int(length)]


# How many values each function takes; "one of anything" is one. A parsed route keeps to it, a tree made otherwise may not.
_COUNTS = {
    function: frozenset({1}) if signatures is None else frozenset(len(wanted) for wanted in signatures)
    for function, (signatures, _) in FUNCTIONS.items()
}
_ANY: dict[str, Callable[[Value], Value]] = {
    "is_bool": lambda one: isinstance(one, bool),
    "is_defined": lambda one: one is not UNDEFINED and one is not MISSING,
    "is_null": lambda one: one is None or one is MISSING,
    "is_number": lambda one: is_number(one) and math.isfinite(one),
    "is_string": lambda one: isinstance(one, str),
}
_NUMBERS: dict[str, Callable[..., float]] = {
    "abs": abs,
    "ceiling": _whole(math.ceil),
    "exp": _exp,
    "floor": _whole(math.floor),
    "power": _power,
    "sign": lambda number: float((number > 0) - (number < 0)),
    "sqrt": lambda number: math.sqrt(number) if number >= 0 else math.nan,
    "square": lambda number: number * number,
}
_TEXTS: dict[str, Callable[..., Value]] = {
    "concat": lambda *texts: joined(*texts),
    "contains": lambda text, part: part in text,
    "ends_with": lambda text, end: text.endswith(end),
    "index_of": lambda text, part: float(text.find(part)),
    "length": lambda text: float(len(text)),
    "lower": lambda text: text.lower(),
    "starts_with": lambda text, beginning: text.startswith(beginning),
    "upper": lambda text: text.upper(),
}
