"""Reads protobuf's text format, as far as configuration files use it, into plain dictionaries. Pure.

    max_batch_size: 8        →  {"max_batch_size": [8], "instance_group": [{"count": [2]}]}
    instance_group [ { count: 2 } ]

Every field is a list, since the text does not say which ones repeat. Enum names stay text; true and false become bool.
"""

from __future__ import annotations

import re
from ast import literal_eval

Message = dict[str, list[object]]

_DEEPEST = 50
_TOKEN = re.compile(
    r"""
    (?P<skip>\s+|\#[^\n]*)
  | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)f?(?![\w.]))
  | (?P<word>-?[A-Za-z_][\w./]*)
  | (?P<mark>[{}<>\[\]:,;])
    """,
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}


def parse_pbtxt(text: str) -> Message:
    """The fields of one message. Raises ValueError with the line of what is not understood."""
    return _Reader(text).whole()


class _Reader:
    """The tokens of a text, one after another."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def whole(self) -> Message:
        found = self._message("", 0)
        if self._kind:
            raise self._odd()
        return found

    @property
    def _kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def _value(self) -> str:
        return self._tokens[self._at][1]

    def _odd(self) -> ValueError:
        kind, value, line = self._tokens[self._at]
        return ValueError(f"line {line}: {value!r} is not expected" if kind else f"line {line}: it ends too early")

    def _take(self, *marks: str) -> bool:
        if self._kind == "mark" and self._value in marks:
            self._at += 1
            return True
        return False

    def _message(self, closing: str, depth: int) -> Message:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deep")
        fields: Message = {}
        while self._kind == "word":
            name = self._value
            self._at += 1
            colon = self._take(":")
            values = self._list(depth) if self._take("[") else [self._single(depth, scalar=colon)]
            fields.setdefault(name, []).extend(values)
            self._take(",", ";")
        if closing and not self._take(closing):
            raise self._odd()
        return fields

    def _list(self, depth: int) -> list[object]:
        found: list[object] = []
        while not self._take("]"):
            if found and not self._take(","):
                raise self._odd()
            found.append(self._single(depth, scalar=True))
        return found

    def _single(self, depth: int, *, scalar: bool) -> object:
        opening = self._value
        if self._take("{", "<"):
            return self._message(_CLOSING[opening], depth + 1)
        if not scalar:
            raise self._odd()
        kind, value = self._kind, self._value
        if kind == "text":
            return self._text()
        self._at += 1
        if kind == "number":
            return _number(value)
        if kind == "word":
            return {"true": True, "false": False}.get(value, value)
        self._at -= 1
        raise self._odd()

    def _text(self) -> str:
        """Neighbouring texts are one."""
        parts = []
        while self._kind == "text":
            try:
                parts.append(str(literal_eval(self._value)))
            except (ValueError, SyntaxError):
                raise self._odd() from None
            self._at += 1
        return "".join(parts)


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, at, line = [], 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"line {line}: {text[at : at + 10]!r} is not expected")
        if match.lastgroup != "skip":
            found.append((match.lastgroup or "", match[0], line))
        line += match[0].count("\n")
        at = match.end()
    return [*found, ("", "", line)]


def _number(text: str) -> int | float:
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return int(text)
    except ValueError:
        return float(text.rstrip("f"))
