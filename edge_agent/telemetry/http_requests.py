"""Requests of modules in bytes, and the bytes of answers: HTTP/1.1 with keep-alive, nothing that a module does not need.

The standard library's server parses every head with a mail parser, which costs more than storing the message. What arrives is
hostile: heads are bounded, and whatever could be read in two ways (two lengths, chunks, folded lines) is refused and ends the
connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus

import msgspec

from edge_agent.errors import MessageRefused
from hedgerow.errors import HedgerowError

HEAD_BYTES_MAX = 32_768
HEADERS_MAX = 128
_HEAD_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,16384}) HTTP/1\.([01])")
# Blanks around the value are cut off apart: beside it in the pattern they would cost the square of their number.
# A line's end by itself is one to some who read this before us, and part of a value to others.
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):([^\r\n\0]*)")
# These differ from message to message; the rest of a head is read once.
_CHANGING = frozenset({b"content-length", b"idempotency-key"})
_SHAPES_KNOWN, _KNOWN_SHAPE_MAX = 64, 4096
_SINGLE = frozenset({"host", "content-length", "authorization", "transfer-encoding"})


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True, eq=False)
class Head:
    """A request without its body. ``headers`` by names in lower case; values are Latin-1.

    ``names`` are those of the headers as they were written, but for the few that change with every message. ``shape`` is the
    head without these: the very same object for most heads of a module, so that what follows from it can be remembered.
    """

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    keep_alive: bool = True
    shape: Head | None = None

    def header(self, name: str) -> str:
        """A header's value, "" when there is none."""
        return self.headers.get(name.lower(), "")


def refusal(problem: HedgerowError, status: HTTPStatus) -> Answer:
    """The answer that says what is wrong."""
    body = {"error": {"key": problem.key, "message": str(problem), "remedy": problem.advice}}
    return Answer(status, msgspec.json.encode(body))


class Incoming:
    """The bytes of one connection that were not looked at yet, request by request."""

    __slots__ = ("_bytes", "_looked_at")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._looked_at = 0

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, data: bytes) -> None:
        """These came."""
        self._bytes += data

    def take_head(self) -> Head | None:
        """The next request without its body; None while it is not whole. Raises MessageRefused."""
        end = self._bytes.find(_HEAD_END, self._looked_at)
        if end < 0:
            self._looked_at = max(0, len(self._bytes) - len(_HEAD_END))
            if len(self._bytes) > HEAD_BYTES_MAX:
                raise MessageRefused(problem=f"its head is longer than {HEAD_BYTES_MAX} bytes")
            return None
        head = _parsed(bytes(self._bytes[:end]))
        del self._bytes[: end + len(_HEAD_END)]
        self._looked_at = 0
        return head

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes of a body, which must have come."""
        data = bytes(self._bytes[:size])
        del self._bytes[:size]
        return data


def _parsed(data: bytes) -> Head:
    first, *lines = data.lstrip(b"\r\n").split(b"\r\n")
    if len(lines) > HEADERS_MAX:
        raise MessageRefused(problem=f"it has more than {HEADERS_MAX} headers")
    steady: list[bytes] = []
    changing: list[bytes] = []
    for line in lines:
        (changing if line.partition(b":")[0].lower() in _CHANGING else steady).append(line)
    shape = (_known_shape if len(data) <= _KNOWN_SHAPE_MAX else _read_shape)(first, tuple(steady))
    if not changing:
        return shape
    headers = dict(shape.headers)
    _add_headers(changing, headers)
    return Head(shape.method, shape.target, headers, shape.names, shape.keep_alive, shape)


def _read_shape(first: bytes, lines: tuple[bytes, ...]) -> Head:
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise MessageRefused(problem="its first line is not that of an HTTP/1.1 request")
    headers: dict[str, str] = {}
    names = _add_headers(lines, headers)
    if "transfer-encoding" in headers:
        raise MessageRefused(problem="it has no content-length (chunks are not taken)")
    words = headers.get("connection", "").lower()
    keep_alive = "close" not in words if request[3] == b"1" else "keep-alive" in words
    return Head(request[1].decode("ascii"), request[2].decode("ascii"), headers, tuple(names), keep_alive)


# A module says nearly the same head with every message.
_known_shape = lru_cache(_SHAPES_KNOWN)(_read_shape)


def _add_headers(lines: Iterable[bytes], headers: dict[str, str]) -> list[str]:
    """Read ``lines`` into ``headers``; their names as they were written. Raises MessageRefused."""
    names: list[str] = []
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise MessageRefused(problem=f"its header {line[:40]!r} cannot be read")
        names.append(match[1].decode("ascii"))
        name, value = names[-1].lower(), match[2].strip(b" \t").decode("latin-1")
        if name in headers:
            if name in _SINGLE:
                raise MessageRefused(problem=f"it has {name} twice")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return names


def written(answer: Answer, *, keep_alive: bool) -> bytes:
    """The bytes of an answer."""
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\ncontent-type: {answer.content_type}\r\n"
        f"content-length: {len(answer.body)}\r\n{'' if keep_alive else 'connection: close'}"
    )
    return head.encode("ascii") + (b"\r\n" if keep_alive else b"\r\n\r\n") + answer.body
