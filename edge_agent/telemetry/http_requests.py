"""Requests of modules read off a socket, answers written to it: HTTP/1.1 with keep-alive, nothing that a module does not need.

The standard library's server parses every head with a mail parser, which costs more than storing the message. What arrives is
hostile: heads are bounded, and whatever could be read in two ways (two lengths, chunks, folded lines) is refused and ends the
connection.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import msgspec

from edge_agent.errors import MessageRefused
from hedgerow.errors import HedgerowError

HEAD_BYTES_MAX = 32_768
HEADERS_MAX = 128
LINGER_S = 2.0
LINGER_BYTES = 4_000_000
_RECEIVE_BYTES = 65_536
_HEAD_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,16384}) HTTP/1\.([01])")
# Blanks around the value are cut off apart: beside it in the pattern they would cost the square of their number.
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):(.*)", re.DOTALL)
_SINGLE = frozenset({"host", "content-length", "authorization", "transfer-encoding"})


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True)
class Head:
    """A request without its body. ``headers`` by names in lower case, ``names`` as they were written; values are Latin-1."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    keep_alive: bool = True

    def header(self, name: str) -> str:
        """A header's value, "" when there is none."""
        return self.headers.get(name.lower(), "")


class Answering(Protocol):
    """Who decides (``Intake``)."""

    def __call__(self, head: Head, read: Callable[[int], bytes]) -> Answer:
        """The answer to one request; ``read`` gives exactly so many bytes of its body."""
        ...


def serve(connection: socket.socket, answer: Answering, waits: Callable[[bool], None] = lambda _waits: None) -> None:
    """Answer requests until the connection ends or must end. Raises OSError.

    ``waits`` is told when we begin to wait for the other side (for a whole head, for a whole body), and when no longer.
    """
    requests = _Requests(connection, waits)
    while True:
        try:
            head = requests.next_head()
        except MessageRefused as problem:
            connection.sendall(_written(refusal(problem, HTTPStatus.BAD_REQUEST), keep_alive=False))
            _end(connection)
            return
        if head is None:
            return
        made = answer(head, requests.read)
        # What was not read of a refused body would be taken for the next request.
        keep_alive = head.keep_alive and (requests.body_read or not requests.has_body)
        connection.sendall(_written(made, keep_alive=keep_alive))
        if not keep_alive:
            _end(connection)
            return


def _end(connection: socket.socket) -> None:
    """Let the other side read the answer: closing while it still sends would reset the connection, and the answer be lost."""
    connection.shutdown(socket.SHUT_WR)
    until_s, left = time.monotonic() + LINGER_S, LINGER_BYTES
    connection.settimeout(LINGER_S)
    while left > 0 and time.monotonic() < until_s and (received := connection.recv(_RECEIVE_BYTES)):
        left -= len(received)


def refusal(problem: HedgerowError, status: HTTPStatus) -> Answer:
    """The answer that says what is wrong."""
    body = {"error": {"key": problem.key, "message": str(problem), "remedy": problem.advice}}
    return Answer(status, msgspec.json.encode(body))


class _Requests:
    """The bytes of one connection, request by request."""

    def __init__(self, connection: socket.socket, waits: Callable[[bool], None]) -> None:
        self._connection = connection
        self._waits = waits
        self._buffer = bytearray()
        self._continue_wanted = False
        self.has_body = False
        self.body_read = False

    def next_head(self) -> Head | None:
        """The next request; None at the end. Raises MessageRefused, OSError."""
        looked_at = 0
        self._waits(True)
        while (end := self._buffer.find(_HEAD_END, max(0, looked_at - len(_HEAD_END)))) < 0:
            looked_at = len(self._buffer)
            if looked_at > HEAD_BYTES_MAX:
                raise MessageRefused(problem=f"its head is longer than {HEAD_BYTES_MAX} bytes")
            received = self._connection.recv(_RECEIVE_BYTES)
            if not received:
                return None
            self._buffer += received
        self._waits(False)
        head = _parsed(bytes(self._buffer[:end]))
        del self._buffer[: end + len(_HEAD_END)]
        self.has_body = head.header("content-length") not in ("", "0")
        self.body_read = False
        self._continue_wanted = head.header("expect").lower() == "100-continue"
        return head

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes of the body. Raises MessageRefused when it ends before."""
        self.body_read = True
        if self._continue_wanted:
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._waits(True)
        while len(self._buffer) < size:
            received = self._connection.recv(_RECEIVE_BYTES)
            if not received:
                raise MessageRefused(problem=f"its body ended after {len(self._buffer)} of {size} bytes")
            self._buffer += received
        self._waits(False)
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        return body


def _parsed(data: bytes) -> Head:
    first, *lines = data.lstrip(b"\r\n").split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise MessageRefused(problem="its first line is not that of an HTTP/1.1 request")
    if len(lines) > HEADERS_MAX:
        raise MessageRefused(problem=f"it has more than {HEADERS_MAX} headers")
    headers: dict[str, str] = {}
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
    if "transfer-encoding" in headers:
        raise MessageRefused(problem="it has no content-length (chunks are not taken)")
    words = headers.get("connection", "").lower()
    keep_alive = "close" not in words if request[3] == b"1" else "keep-alive" in words
    return Head(request[1].decode("ascii"), request[2].decode("ascii"), headers, tuple(names), keep_alive)


def _written(answer: Answer, *, keep_alive: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\ncontent-type: {answer.content_type}\r\n"
        f"content-length: {len(answer.body)}\r\n{'' if keep_alive else 'connection: close'}"
    )
    return head.encode("ascii") + (b"\r\n" if keep_alive else b"\r\n\r\n") + answer.body
