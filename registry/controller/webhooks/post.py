"""One POST over one connection, by a deadline, whatever the other end does: slow, endless, broken or silent.

Not an HTTP library, on purpose: of an answer only its status is wanted, and no read may be longer than what is left of the
time. Nothing is loaded into a process that sends nothing.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Mapping

from hedgerow.egress import Target
from registry.controller.webhooks.verdict import Answered

HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 1024
# Only so that a receiver is not cut off in the middle of its answer: what it says is of no interest.
_BODY_WAIT_S = 1.0
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?\r?\n")
_CONTENT_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r?\n", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\nretry-after:[ \t]*(\d{1,9})[ \t]*\r?\n", re.IGNORECASE)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_SWITCHING, _FINAL = 101, 200

# Seconds that are left; raises TimeoutError when there are none.
Left = Callable[[], float]


class NoAnswer(OSError):
    """What came back is no answer; the text is a sentence without its end."""


def post(stream: socket.socket, target: Target, headers: Mapping[str, str], body: bytes, left: Left) -> Answered:
    """Send ``body`` and read the status of the answer. Raises NoAnswer and other OSErrors (TimeoutError among them)."""
    lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.authority}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    # Who refuses a request may answer, and close, before it has read all of it.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _send(stream, "\r\n".join([*lines, "", ""]).encode("ascii") + body, left)
    answer = _Answer(stream, left)
    head = answer.head()
    code = _status(head)
    # 1xx: the real answer comes after it.
    while code < _FINAL:
        if code == _SWITCHING:
            raise NoAnswer("the receiver wants to speak another protocol")
        head = answer.head()
        code = _status(head)
    answer.read_some_body(head)
    retry_after = _RETRY_AFTER.search(head)
    return Answered(code, float(retry_after[1]) if retry_after else None)


def _send(stream: socket.socket, data: bytes, left: Left) -> None:
    rest = memoryview(data)
    while rest:
        stream.settimeout(left())
        rest = rest[stream.send(rest) :]


def _status(head: bytes) -> int:
    found = _STATUS.match(head)
    if found is None:
        raise NoAnswer("what answered does not speak HTTP/1.1")
    return int(found[1])


class _Answer:
    """Reads what comes back; all heads together are bounded."""

    def __init__(self, stream: socket.socket, left: Left) -> None:
        self._stream, self._left = stream, left
        self._data = b""
        self._room = HEAD_BYTES_MAX

    def head(self) -> bytes:
        """Status line and fields, with the line end of the last one."""
        while (end := _HEAD_END.search(self._data)) is None:
            if len(self._data) > self._room:
                raise NoAnswer(f"the head of the answer has more than {HEAD_BYTES_MAX // 1024} kB")
            if not self._read():
                raise NoAnswer("the receiver closed the connection without an answer")
        head, self._data = self._data[: end.start()] + b"\r\n", self._data[end.end() :]
        self._room -= len(head)
        return head

    def read_some_body(self, head: bytes) -> None:
        """Up to 1 KiB of it, for a moment; what goes wrong here changes nothing."""
        announced = _CONTENT_LENGTH.search(head)
        wanted = min(BODY_BYTES_MAX, int(announced[1])) if announced else BODY_BYTES_MAX
        with contextlib.suppress(OSError):
            while len(self._data) < wanted and self._read(_BODY_WAIT_S):
                pass

    def _read(self, longest_s: float | None = None) -> bool:
        left_s = self._left()
        self._stream.settimeout(left_s if longest_s is None else min(left_s, longest_s))
        piece = self._stream.recv(BODY_BYTES_MAX)
        self._data += piece
        return bool(piece)
