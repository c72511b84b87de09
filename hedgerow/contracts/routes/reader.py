"""Reads a route's text token by token, as IoT Edge's lexer does (GrammarLexer.g4), and says where it cannot go on.

What is expected decides what is read: at the place of an operand ``-1`` is a number, at that of an operator ``-`` is a minus.
IoT Edge needs blanks around operators because its names may hold most signs; that holds here too, but for ``!=`` and ``||``,
which end a name.
"""

from __future__ import annotations

import re
from typing import NoReturn

from hedgerow.contracts.routes.tree import LEVELS, RouteMistake
from hedgerow.errors import UserError

MAX_TEXT_LENGTH = 4096
_SHOWN = 24
_BLANKS = re.compile(r"(?:[ \t\r\n]+|/\*.*?\*/)*", re.DOTALL)
_SPACES = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAME_CHARS = r"(?:(?!\|\||!=)[^()<>@,;:\\\"/\[\]?={} \t\n\r])"
_NAME = re.compile(_NAME_CHARS + "+")
_QUERY_PATH = re.compile(r"(?:(?!\|\||!=)[^()<>@,;:\\\"/?={} \t\n\r])+")
_PATH_ITEM = re.compile(r"[^()<>@,;:\\\"/\[\]?={} \t\n\r]+")
_STRING = re.compile(r"""(["'])((?:(?!\1)[^\\]|\\["'\\]|\\u[0-9a-fA-F]{4})*)\1""")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_GLUED = re.compile(r"-?[0-9][0-9.]*[+*%-][0-9.+*%-]*\Z")
_OPERATORS = sorted({operator for level in LEVELS for operator in level} - {"and", "or"}, key=len, reverse=True)
KEYWORDS = frozenset({"select", "from", "where", "into", "and", "or", "not"})
# Unlike keywords these hold in lower case only; ``True`` is a property's name.
LITERALS = frozenset({"true", "false", "null", "undefined"})


class RouteInvalid(UserError):
    """The text of a route cannot be read, or compares what cannot be compared."""

    key = "route_invalid"
    message = "The route goes wrong at character {position} ({near}): {problem}"
    remedy = "{hint}"

    def __init__(self, *, text: str, mistake: RouteMistake) -> None:
        self.mistake = mistake
        super().__init__(position=mistake.at + 1, near=quoted_place(text, mistake.at), problem=mistake.what, hint=mistake.hint)


def quoted_place(text: str, at: int) -> str:
    """The text around a place, which is marked: ``… WHERE a = ►)``."""
    before, after = text[max(0, at - _SHOWN) : at], text[at : at + _SHOWN]
    head = "…" if at > _SHOWN else ""
    tail = "…" if at + _SHOWN < len(text) else ""
    shown = f"{head}{before}►{after}{tail}"
    return "".join(char if char.isprintable() else " " for char in shown)


class Reader:
    """A place in a text. What is read is returned, and the place moves behind it and the blanks that follow."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.blanks()

    def fail(self, what: str, hint: str, at: int | None = None) -> NoReturn:
        """Raise RouteInvalid for this place, or for ``at``."""
        raise RouteInvalid(text=self.text, mistake=RouteMistake(at=self.at if at is None else at, what=what, hint=hint))

    @property
    def ended(self) -> bool:
        """True when nothing is left."""
        return self.at >= len(self.text)

    def blanks(self) -> None:
        """Skip white space and comments."""
        self._skip(_BLANKS)

    def peek(self, sign: str) -> bool:
        """Whether ``sign`` stands here."""
        return self.text.startswith(sign, self.at)

    def take(self, sign: str) -> bool:
        """Read ``sign`` if it stands here."""
        if not self.peek(sign):
            return False
        self.at += len(sign)
        self.blanks()
        return True

    def word(self) -> str:
        """The name that stands here, "" for none; it is not read yet."""
        found = _NAME.match(self.text, self.at)
        return found.group() if found else ""

    def take_keyword(self, keyword: str) -> bool:
        """Read a keyword in any case if it stands here."""
        return self.word().lower() == keyword and self.take(self.word())

    def take_from(self) -> bool:
        """Read FROM. What follows is a path, whose ``/*`` begins no comment."""
        if self.word().lower() != "from":
            return False
        self.at += len("from")
        self._skip(_SPACES)
        return True

    def take_star(self) -> bool:
        """Read the ``*`` of ``SELECT *``."""
        return self.word() == "*" and self.take("*")

    def operator(self) -> str:
        """The binary operator that stands here, in lower case, "" for none; it is not read yet."""
        word = self.word().lower()
        if word in {"and", "or"}:
            return word
        return next((operator for operator in _OPERATORS if self.peek(operator)), "")

    def take_operator(self, operator: str) -> None:
        """Read what ``operator`` has found."""
        self.at += len(operator)
        self.blanks()

    def take_number(self) -> float | None:
        """A number, None when there is none: what only begins like one (``2nd``) is a name."""
        found = _NUMBER.match(self.text, self.at)
        if found is None or len(self.word()) > len(found.group()):
            self._refuse_glued()
            return None
        digits = found.group()
        if digits[:2].lower() != "0x":
            number = float(digits)
        elif len(digits) <= 18:
            number = float(int(digits[2:], 16))
        else:
            self.fail("a hexadecimal number with more than 16 digits", "Write it as a decimal number.")
        self.take(digits)
        return number

    def _refuse_glued(self) -> None:
        """``3+4`` would be a property of that name."""
        if _GLUED.match(self.word()):
            self.fail("an operator without blanks around it", "Write blanks around operators: 3 + 4.")

    def take_dollar_name(self) -> str:
        """``$name`` or ``$body.path[0]``, "" when there is none."""
        return self.take_query_path() if self.peek("$") and self.word() != "$" else ""

    def take_query_path(self) -> str:
        """``a.b[0]``, "" when there is none."""
        found = _QUERY_PATH.match(self.text, self.at)
        if found is None:
            return ""
        self.take(found.group())
        return found.group()

    def take_string(self) -> str | None:
        """A string between single or double quotes with its escapes resolved, None when there is none."""
        raw = self.take_raw_string()
        return None if raw is None else _unescaped(raw)

    def take_raw_string(self) -> str | None:
        """The same with escapes left as they are."""
        if self.text[self.at : self.at + 1] not in {'"', "'"}:
            return None
        found = _STRING.match(self.text, self.at)
        if found is None:
            self.fail("a string without an end", "Close it with the quote it began with; a backslash is written \\\\.")
        self.take(found.group())
        return found.group(2)

    def take_path(self) -> tuple[str, ...]:
        """``/level/level/…`` of a source, () when there is none."""
        levels: list[str] = []
        while self.peek("/"):
            self.at += 1
            # Not blanks(): in /messages/* a comment would begin.
            self._skip(_SPACES)
            found = _PATH_ITEM.match(self.text, self.at)
            if found is None:
                self.fail("a level of the path is missing", "Write it like /messages/* or /messages/modules/M/outputs/O.")
            levels.append(found.group())
            self.at = found.end()
            self._skip(_SPACES)
        self.blanks()
        return tuple(levels)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at


def _unescaped(raw: str) -> str:
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], raw)
    # Two escapes may be the halves of one character; half a one is no text.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
