"""Parses the condition of a route (IoT Edge's Condition.g4) and checks the kinds of its values on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hedgerow.contracts.routes.reader import KEYWORDS, LITERALS, Reader
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
    UnaryOperator,
    Undefined,
)
from hedgerow.contracts.routes.types import TWIN_CHANGE, Kind, Unfit, binary_kind, call_kind, unary_kind

# Brackets, functions and prefixes inside each other; and the depth of the whole tree, where a long chain counts too.
MAX_NESTING = 40
MAX_DEPTH = 200
_BODY = "$body"
_STEP = re.compile(r"([^()<>@,;:\\\"/\[\]?={}.\t\n\r ]+)|\[([0-9]{1,6})\]")
_TWIN_PREFIXES = ("properties.reported.", "properties.desired.", "tags.")
_LITERAL_KINDS: dict[str, tuple[Expression, Kind]] = {
    "true": (Constant(True), "bool"),
    "false": (Constant(False), "bool"),
    "null": (Constant(None), "null"),
    "undefined": (Undefined(), "undefined"),
}


@dataclass(frozen=True)
class _Part:
    node: Expression
    kind: Kind
    depth: int = 1


def parse_condition(reader: Reader) -> Expression:
    """The expression at the reader's place. Raises RouteInvalid."""
    return _Parser(reader).binary(0, 0).node


class _Parser:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def binary(self, level: int, nesting: int) -> _Part:
        """Operands joined by the operators of ``LEVELS[level]`` and tighter ones."""
        if level == len(LEVELS):
            return self._unary(nesting)
        left = self.binary(level + 1, nesting)
        while (operator := self._reader.operator()) in LEVELS[level]:
            at = self._reader.at
            self._reader.take_operator(operator)
            left = self._joined(operator, left, self.binary(level + 1, nesting), at)
        return left

    def _joined(self, operator: str, left: _Part, right: _Part, at: int) -> _Part:
        depth = max(left.depth, right.depth) + 1
        if depth > MAX_DEPTH:
            self._reader.fail(f"more than {MAX_DEPTH} operators in one chain", "Split the route into several.", at)
        try:
            kind = binary_kind(operator, left.kind, right.kind)
        except Unfit as unfit:
            self._reader.fail(unfit.what, unfit.hint, at)
        known = "!=" if operator == "<>" else operator
        return _Part(Binary(known, left.node, right.node), kind, depth)  # type: ignore[arg-type]  # the reader gives only operators

    def _unary(self, nesting: int) -> _Part:
        if nesting > MAX_NESTING:
            self._reader.fail(f"more than {MAX_NESTING} brackets inside each other", "Split the route into several.")
        word = self._reader.word().lower()
        operators: dict[str, UnaryOperator] = {"-": "-", "not": "not"}
        if word not in operators:
            return self._operand(nesting)
        at = self._reader.at
        self._reader.take_keyword(word)
        operand = self._unary(nesting + 1)
        try:
            kind = unary_kind(word, operand.kind)
        except Unfit as unfit:
            self._reader.fail(unfit.what, unfit.hint, at)
        return _Part(Unary(operators[word], operand.node), kind, operand.depth + 1)

    def _operand(self, nesting: int) -> _Part:
        reader = self._reader
        if reader.take("("):
            inner = self.binary(0, nesting + 1)
            self._close(")")
            return inner
        if reader.take("{"):
            at = reader.at
            name = reader.take_dollar_name()
            if not name:
                reader.fail("a system property is missing", "Write it like {$connectionModuleId}.")
            self._close("}")
            return self._dollar(name, at, only=True)
        text = reader.take_string()
        if text is not None:
            return _Part(Constant(text), "string")
        at = reader.at
        if name := reader.take_dollar_name():
            return self._dollar(name, at, only=False)
        number = reader.take_number()
        if number is not None:
            return _Part(Constant(number), "number")
        return self._named(nesting)

    def _named(self, nesting: int) -> _Part:
        reader = self._reader
        word, at = reader.word(), reader.at
        if not word or word.lower() in KEYWORDS:
            found = f"not {word.upper()}" if word else "here" if not reader.ended else "at the end"
            reader.fail(f"a value is expected {found}", "Write a property, $body.PATH, a text, a number or a function.")
        reader.take(word)
        if word in LITERALS:
            return _Part(*_LITERAL_KINDS[word])
        if reader.take("("):
            return self._twin_change(at) if word.lower() == TWIN_CHANGE else self._call(word.lower(), at, nesting)
        if reader.peek("["):
            reader.fail("a property has no elements", "Only $body.PATH takes [0].")
        return _Part(Property(word), "string")

    def _call(self, function: str, at: int, nesting: int) -> _Part:
        parts: list[_Part] = []
        if not self._reader.take(")"):
            parts.append(self.binary(0, nesting + 1))
            while self._reader.take(","):
                parts.append(self.binary(0, nesting + 1))
            self._close(")")
        try:
            kind = call_kind(function, [part.kind for part in parts])
        except Unfit as unfit:
            self._reader.fail(unfit.what, unfit.hint, at)
        depth = 1 + max((part.depth for part in parts), default=0)
        return _Part(Call(function, tuple(part.node for part in parts)), kind, depth)

    def _twin_change(self, at: int) -> _Part:
        path = self._reader.take_query_path()
        steps = path_steps(path)
        if not path.lower().startswith(_TWIN_PREFIXES) or steps is None:
            self._reader.fail(
                f"{TWIN_CHANGE}() takes a path in a twin",
                "Write it like twin_change_includes(properties.desired.NAME), or with properties.reported. or tags.",
                at,
            )
        self._close(")")
        return _Part(TwinChange(steps), "bool")

    def _dollar(self, name: str, at: int, *, only: bool) -> _Part:
        body = name[: len(_BODY)].lower() == _BODY and name[len(_BODY) : len(_BODY) + 1] in {".", "["}
        if not body:
            if "[" in name or "]" in name:
                self._reader.fail("a system property has no elements", "Only $body.PATH takes [0].", at)
            return _Part(SystemProperty(name[1:], only), "string")
        rest = name[len(_BODY) :]
        steps = path_steps(rest.removeprefix(".")) if not rest.startswith(".[") else None
        if steps is None:
            self._reader.fail(f"{name} is no path in a body", "Write it like $body.a.b or $body.a[0].b.", at)
        return _Part(BodyPath(steps, only), "any")

    def _close(self, bracket: str) -> None:
        if not self._reader.take(bracket):
            self._reader.fail(f"a closing {bracket} is missing", "Close every bracket, and put an operator between two values.")


def path_steps(path: str) -> tuple[str | int, ...] | None:
    """``a[0].b`` as steps; None for what is no such path."""
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or (found[1] is None) == (path[at] != "["):
            return None
        steps.append(found[1] if found[1] is not None else int(found[2]))
        at = found.end()
        if at < len(path) and path[at] == ".":
            at += 1
            if at == len(path) or path[at] == "[":
                return None
        elif at < len(path) and path[at] != "[":
            return None
    return tuple(steps) or None
