"""Target conditions: which devices an edge deployment is for. Text in, a condition out; pure.

Grammar (keywords and ``deviceId`` in any case, as in Azure IoT Hub)::

    condition : "" (no device) | "*" (every device) | either
    either    : both { OR both }
    both      : one { AND one }
    one       : NOT one | "(" either ")" | IS_DEFINED "(" field ")" | field ("=" | "!=" | "<>") value
              | field ("<" | "<=" | ">" | ">=") number | field IN "[" value { "," value } "]"
    field     : deviceId | tags.KEY | properties.reported.KEY              KEY may contain dots
    value     : 'text' ('' is a quote in it) | "text" | number | true | false

Tags are text: a number or ``true`` equals the tag with just those characters; ``<`` and its like read the tag as a number.
A device that lacks a tag satisfies neither ``=`` nor ``!=`` on it. What devices report of themselves is in ``reported.py``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from registry.hub.errors import TargetInvalid

MAX_LENGTH = 4096
_MAX_DEPTH = 50
_NUMBER = re.compile(r"[-+]?[0-9]{1,60}(?:\.[0-9]{1,60})?(?:[eE][-+]?[0-9]{1,2})?")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<number>-?\d+(?:\.\d+)?(?![\w.-]))
      | (?P<word>[A-Za-z_$][\w$-]*(?:\.[\w$-]+)*)
      | (?P<sign><>|!=|<=|>=|=|<|>|\*|\(|\)|\[|\]|,)
    )""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class Everything:
    """``*``"""


@dataclass(frozen=True)
class Nothing:
    """The empty condition."""


@dataclass(frozen=True)
class Among:
    """``field = value``, ``field != value`` or ``field IN [values]``; ``tag`` None means the device's name.

    ``reported``: what the device reports under that name, not a tag.
    """

    tag: str | None
    values: frozenset[str]
    equal: bool
    reported: bool = False


Sign = Literal["<", "<=", ">", ">="]
_ORDER: Mapping[Sign, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Ordered:
    """``field < number`` and its like."""

    tag: str | None
    sign: Sign
    number: float
    reported: bool = False


@dataclass(frozen=True)
class Defined:
    """``IS_DEFINED(field)``"""

    tag: str | None
    reported: bool = False


@dataclass(frozen=True)
class Not:
    condition: Condition


@dataclass(frozen=True)
class Both:
    left: Condition
    right: Condition


@dataclass(frozen=True)
class Either:
    left: Condition
    right: Condition


Condition = Everything | Nothing | Among | Ordered | Defined | Not | Both | Either
Field = tuple[str | None, bool]
_NOTHING_REPORTED: Mapping[str, str] = {}


def parse_target(text: str) -> Condition:
    """Raises TargetInvalid, which names the position (counted from 1) and what is wrong there."""
    if len(text) > MAX_LENGTH:
        raise TargetInvalid(target=text[:40] + "…", position=MAX_LENGTH, problem=f"it is longer than {MAX_LENGTH} characters")
    return _Parser(text).whole()


def matches(condition: Condition, device: str, tags: Mapping[str, str], reported: Mapping[str, str] = _NOTHING_REPORTED) -> bool:
    """Whether a device of this name with these tags is meant; ``reported`` as :func:`registry.hub.reported.facts_of` gives it."""

    match condition:
        case Everything():
            return True
        case Nothing():
            return False
        case Not(inner):
            return not matches(inner, device, tags, reported)
        case Both(left, right):
            return matches(left, device, tags, reported) and matches(right, device, tags, reported)
        case Either(left, right):
            return matches(left, device, tags, reported) or matches(right, device, tags, reported)
        case Among() | Ordered() | Defined():
            known = reported if condition.reported else tags
            found = device if condition.tag is None else known.get(condition.tag)
            return found is not None and _holds(condition, found)


def _holds(condition: Among | Ordered | Defined, found: str) -> bool:
    match condition:
        case Among():
            return (found in condition.values) == condition.equal
        case Ordered():
            measured = _number(found)
            return measured is not None and _ORDER[condition.sign](measured, condition.number)
        case Defined():
            return True


def uses_reported(condition: Condition) -> bool:
    """Whether what devices report decides."""
    match condition:
        case Among() | Ordered() | Defined():
            return condition.reported
        case Not(inner):
            return uses_reported(inner)
        case Both(left, right) | Either(left, right):
            return uses_reported(left) or uses_reported(right)
        case _:
            return False


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def only_names(condition: Condition) -> frozenset[str] | None:
    """The devices' names outside of which ``condition`` matches nothing; None when any device may come to match."""
    match condition:
        case Nothing():
            return frozenset()
        case Among(None, values, True):
            return values
        case Both(left, right):
            known = [names for names in (only_names(left), only_names(right)) if names is not None]
            return frozenset.intersection(*known) if known else None
        case Either(left, right):
            one, other = only_names(left), only_names(right)
            return None if one is None or other is None else one | other
        case _:
            return None


class _Token(NamedTuple):
    kind: Literal["text", "number", "word", "sign", "end"]
    text: str
    position: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._read()
        self._at = 0

    def whole(self) -> Condition:
        if self._peek().kind == "end":
            return Nothing()
        if self._take("*"):
            found: Condition = Everything()
        else:
            found = self._either(0)
        if self._peek().kind != "end":
            raise self._wrong("AND, OR or the end was expected")
        return found

    def _either(self, depth: int) -> Condition:
        found = self._both(depth)
        while self._take("OR"):
            found = Either(found, self._both(depth))
        return found

    def _both(self, depth: int) -> Condition:
        found = self._one(depth)
        while self._take("AND"):
            found = Both(found, self._one(depth))
        return found

    def _one(self, depth: int) -> Condition:
        if depth > _MAX_DEPTH:
            raise self._wrong("it is nested too deeply")
        if self._take("NOT"):
            return Not(self._one(depth + 1))
        if self._take("("):
            inner = self._either(depth + 1)
            self._need(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Condition:
        if self._take("IS_DEFINED"):
            self._need("(")
            tag, reported = self._field()
            self._need(")")
            return Defined(tag, reported)
        tag, reported = self._field()
        if self._take("="):
            return Among(tag, frozenset({self._value()}), equal=True, reported=reported)
        if self._take("!=") or self._take("<>"):
            return Among(tag, frozenset({self._value()}), equal=False, reported=reported)
        for sign in _ORDER:
            if self._take(sign):
                return Ordered(tag, sign, self._bound(), reported)
        if self._take("IN"):
            self._need("[")
            values = {self._value()}
            while self._take(","):
                values.add(self._value())
            self._need("]")
            return Among(tag, frozenset(values), equal=True, reported=reported)
        raise self._wrong("=, !=, <>, <, <=, >, >= or IN was expected")

    def _field(self) -> Field:
        token = self._peek()
        lowered = token.text.lower()
        if token.kind == "word" and lowered == "deviceid":
            self._at += 1
            return None, False
        for head, reported in (("tags.", False), ("properties.reported.", True)):
            if token.kind == "word" and lowered.startswith(head):
                self._at += 1
                return token.text[len(head) :], reported
        raise self._wrong("deviceId, tags.KEY, properties.reported.KEY, NOT or ( was expected")

    def _bound(self) -> float:
        token = self._peek()
        number = _number(token.text) if token.kind == "number" else None
        if number is None:
            raise self._wrong("a number was expected")
        self._at += 1
        return number

    def _value(self) -> str:
        token = self._peek()
        self._at += 1
        if token.kind == "text":
            quote = token.text[0]
            return token.text[1:-1].replace(quote * 2, quote)
        if token.kind == "number" or token.text.lower() in ("true", "false"):
            return token.text.lower()
        self._at -= 1
        raise self._wrong("a value in quotes, a number, true or false was expected")

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, word: str) -> bool:
        if self._peek().kind in ("word", "sign") and self._peek().text.upper() == word:
            self._at += 1
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise self._wrong(f"{sign} was expected")

    def _read(self) -> list[_Token]:
        found: list[_Token] = []
        at = 0
        end = len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                start = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                raise self._wrong("this cannot be read", start)
            kind = match.lastgroup
            found.append(_Token(kind, match.group(kind), match.start(kind)))  # type: ignore[arg-type]  # the groups' names
            at = match.end()
        return [*found, _Token("end", "", end)]

    def _wrong(self, problem: str, position: int | None = None) -> TargetInvalid:
        where = self._peek().position if position is None else position
        return TargetInvalid(target=self._text, position=where + 1, problem=problem)
