"""Target conditions: which devices an edge deployment is for. Text in, a condition out; pure.

Grammar (keywords and ``deviceId`` in any case, as in Azure IoT Hub)::

    condition : "" (no device) | "*" (every device) | either
    either    : both { OR both }
    both      : one { AND one }
    one       : NOT one | "(" either ")" | field ("=" | "!=" | "<>") value | field IN "[" value { "," value } "]"
    field     : deviceId | tags.KEY              KEY may contain dots
    value     : 'text' ('' is a quote in it) | "text" | number | true | false

Tags are text: a number or ``true`` equals the tag with just those characters. A device that lacks a tag satisfies
neither ``=`` nor ``!=`` on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from registry.hub.errors import TargetInvalid

MAX_LENGTH = 4096
_MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<number>-?\d+(?:\.\d+)?(?![\w.-]))
      | (?P<word>[A-Za-z_$][\w$-]*(?:\.[\w$-]+)*)
      | (?P<sign><>|!=|=|\*|\(|\)|\[|\]|,)
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
    """``field = value``, ``field != value`` or ``field IN [values]``; ``tag`` None means the device's name."""

    tag: str | None
    values: frozenset[str]
    equal: bool


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


Condition = Everything | Nothing | Among | Not | Both | Either


def parse_target(text: str) -> Condition:
    """Raises TargetInvalid, which names the position (counted from 1) and what is wrong there."""
    if len(text) > MAX_LENGTH:
        raise TargetInvalid(target=text[:40] + "…", position=MAX_LENGTH, problem=f"it is longer than {MAX_LENGTH} characters")
    return _Parser(text).whole()


def matches(condition: Condition, device: str, tags: Mapping[str, str]) -> bool:
    """Whether a device of this name with these tags is meant."""
    match condition:
        case Everything():
            return True
        case Nothing():
            return False
        case Among(tag, values, equal):
            found = device if tag is None else tags.get(tag)
            return found is not None and (found in values) == equal
        case Not(inner):
            return not matches(inner, device, tags)
        case Both(left, right):
            return matches(left, device, tags) and matches(right, device, tags)
        case Either(left, right):
            return matches(left, device, tags) or matches(right, device, tags)


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
        tag = self._field()
        if self._take("="):
            return Among(tag, frozenset({self._value()}), equal=True)
        if self._take("!=") or self._take("<>"):
            return Among(tag, frozenset({self._value()}), equal=False)
        if self._take("IN"):
            self._need("[")
            values = {self._value()}
            while self._take(","):
                values.add(self._value())
            self._need("]")
            return Among(tag, frozenset(values), equal=True)
        raise self._wrong("=, !=, <> or IN was expected")

    def _field(self) -> str | None:
        token = self._peek()
        if token.kind == "word" and token.text.lower() == "deviceid":
            self._at += 1
            return None
        head, dot, tag = token.text.partition(".")
        if token.kind == "word" and head.lower() == "tags" and dot:
            self._at += 1
            return tag
        raise self._wrong("deviceId, tags.KEY, NOT or ( was expected")

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
