"""Which kinds of values a route's operators and functions take (IoT Edge checks this when it reads a route, and so do we).

Application and system properties are always text, so ``temperature > 20`` is a mistake that ``as_number(temperature) > 20``
mends. What ``$body`` gives is "any": it fits everywhere and is looked at when a message comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Kind = Literal["bool", "number", "string", "null", "undefined", "any"]

_LOGICAL: frozenset[Kind] = frozenset({"bool", "null", "undefined", "any"})
_WITH_ANY: frozenset[Kind] = frozenset({"bool", "number", "string", "null"})
_IN_WORDS = {
    "bool": "true or false",
    "number": "a number",
    "string": "text",
    "null": "null",
    "undefined": "undefined",
    "any": "$body",
}
_NUMBER_1: tuple[tuple[Kind, ...], ...] = (("number",),)
_STRING_1: tuple[tuple[Kind, ...], ...] = (("string",),)
_STRING_2: tuple[tuple[Kind, ...], ...] = (("string", "string"),)
CONCAT = "concat"
# Name: what it takes (one of several lists; None: one of anything) and what it gives. ``concat`` takes two texts or more.
FUNCTIONS: dict[str, tuple[tuple[tuple[Kind, ...], ...] | None, Kind]] = {
    "abs": (_NUMBER_1, "number"),
    "as_number": ((("string",), ("number",)), "number"),
    "ceiling": (_NUMBER_1, "number"),
    CONCAT: (_STRING_2, "string"),
    "contains": (_STRING_2, "bool"),
    "ends_with": (_STRING_2, "bool"),
    "exp": (_NUMBER_1, "number"),
    "floor": (_NUMBER_1, "number"),
    "index_of": (_STRING_2, "number"),
    "is_bool": (None, "bool"),
    "is_defined": (None, "bool"),
    "is_null": (None, "bool"),
    "is_number": (None, "bool"),
    "is_string": (None, "bool"),
    "length": (_STRING_1, "number"),
    "lower": (_STRING_1, "string"),
    "power": ((("number", "number"),), "number"),
    "sign": (_NUMBER_1, "number"),
    "sqrt": (_NUMBER_1, "number"),
    "square": (_NUMBER_1, "number"),
    "starts_with": (_STRING_2, "bool"),
    "substring": ((("string", "number"), ("string", "number", "number")), "string"),
    "upper": (_STRING_1, "string"),
}
TWIN_CHANGE = "twin_change_includes"


class Unfit(Exception):
    """Values that an operator or function does not take."""

    def __init__(self, what: str, hint: str) -> None:
        self.what = what
        self.hint = hint
        super().__init__(what)


def unary_kind(operator: str, operand: Kind) -> Kind:
    """What a prefix operator gives. Raises Unfit."""
    wanted: frozenset[Kind] = frozenset({"bool", "null", "any"}) if operator == "not" else frozenset({"number", "any"})
    if operand not in wanted:
        raise Unfit(f"{operator.upper()} cannot take {_IN_WORDS[operand]}", _hint([operand], operator))
    return "bool" if operator == "not" else operand


def binary_kind(operator: str, left: Kind, right: Kind) -> Kind:
    """What a binary operator gives. Raises Unfit."""
    if operator in {"and", "or"}:
        fits = left in _LOGICAL and right in _LOGICAL
        null = {left, right} == {"null"} or (operator == "and" and "null" in {left, right})
        given: Kind = "null" if null else "bool"
    elif operator in {"+", "-", "*", "/", "%"}:
        fits, given = {left, right} <= {"number", "any"}, "number"
    elif operator == "||":
        fits, given = {left, right} <= {"string", "any"}, "string"
    else:
        fits = left == right or _meets_any(left, right)
        given = "bool" if operator != "??" else (left if left == right else "any")
    if not fits:
        both = f"{_IN_WORDS[left]} and {_IN_WORDS[right]}"
        raise Unfit(f"{operator.upper()} cannot take {both}", _hint([left, right], operator))
    return given


def call_kind(function: str, given: Sequence[Kind]) -> Kind:
    """What a function gives. Raises Unfit."""
    if function not in FUNCTIONS:
        raise Unfit(f"there is no function {function!r}", f"Known are: {', '.join(sorted([*FUNCTIONS, TWIN_CHANGE]))}.")
    signatures, kind = FUNCTIONS[function]
    if signatures is None:
        fits = len(given) == 1
    elif function == CONCAT:
        fits = len(given) >= 2 and all(one in {"string", "any"} for one in given)
    else:
        fits = any(len(given) == len(wanted) and all(map(_fits, wanted, given)) for wanted in signatures)
    if not fits:
        got = ", ".join(_IN_WORDS[one] for one in given) or "nothing"
        raise Unfit(f"{function}() cannot take {got}", f"It takes {_signature(function)}.{_aside(given)}")
    return kind


def _fits(wanted: Kind, given: Kind) -> bool:
    return given in {wanted, "any"}


def _meets_any(left: Kind, right: Kind) -> bool:
    return (left == "any" and right in _WITH_ANY) or (right == "any" and left in _WITH_ANY)


def _signature(function: str) -> str:
    signatures = FUNCTIONS[function][0]
    if signatures is None:
        return "one value"
    if function == CONCAT:
        return "two or more texts"
    return " or ".join(", ".join(_IN_WORDS[one] for one in wanted) for wanted in signatures)


def _hint(given: Sequence[Kind], operator: str) -> str:
    if operator == "not":
        return "NOT binds tightest: write NOT (a = b) with brackets."
    if operator == "??":
        return "?? binds loosest: write (a ?? b) = c with brackets; both sides must be of one kind."
    return "Both sides must be of one kind." + _aside(given)


def _aside(given: Sequence[Kind]) -> str:
    return " Properties are text: use as_number(NAME) for numbers, and quotes around text." if "string" in given else ""
