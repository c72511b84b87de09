"""The answer to what is no request: too long a line, too large a head, bytes that are not HTTP. Flask never sees these.

They get the one error shape all the same, and never their own words back: a request line may hold a token, and who sent it
wrongly may have sent it to the wrong place.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from http import HTTPStatus
from time import monotonic

from gunicorn.http import errors

from hedgerow.contracts.document import encode
from hedgerow.contracts.work import Problem, ProblemAnswer
from hedgerow.errors import Bug, HedgerowError
from hedgerow.logs import Seldom
from registry.server.errors import AddressTooLong, HeadTooLarge, MalformedRequest
from registry.server.http_errors import status_of

_LOG = logging.getLogger(__name__)
LONGEST_LINE = 8190
# Somebody who is still sending gets the answer, if that takes no longer; closing before it is read would lose it.
_LINGER_S, _LINGER_BYTES = 1.0, 1024 * 1024
# The first that fits.
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (errors.InvalidRequestMethod, "its method is none of HTTP's"),
    (errors.InvalidHTTPVersion, "its version is not HTTP/1.1"),
    (errors.InvalidRequestLine, "its first line is not METHOD ADDRESS HTTP/1.1"),
    (errors.ObsoleteFolding, "a header goes over several lines"),
    (errors.InvalidHeaderName, "the name of a header holds characters that belong into none"),
    (errors.InvalidHeader, "a header is wrong or contradicts another"),
    (errors.UnsupportedTransferCoding, "its transfer encoding is not known here"),
    (errors.ExpectationFailed, "it expects what cannot be had (Expect)"),
    (errors.ParseException, "it is not HTTP/1.1"),
)


def problem_of(raised: BaseException) -> HedgerowError:
    """What was raised while a request was read (or answered, outside of Flask), as an error of ours."""
    if isinstance(raised, errors.InvalidResponseHeader | errors.InvalidResponseHeaderName):
        return Bug(what="an answer had a header that HTTP does not allow")
    if isinstance(raised, errors.LimitRequestLine):
        return AddressTooLong(limit_bytes=LONGEST_LINE)
    if isinstance(raised, errors.LimitRequestHeaders):
        return HeadTooLarge()
    for kind, words in _WORDS:
        if isinstance(raised, kind):
            return MalformedRequest(problem=words)
    return Bug(what=f"{type(raised).__name__} while a request was read")


def answer(problem: HedgerowError) -> bytes:
    """The whole answer, after which the connection ends."""
    status = HTTPStatus(status_of(problem))
    details = {name: str(value) for name, value in problem.fields.items()}
    body = encode(ProblemAnswer(error=Problem(code=problem.key, message=str(problem), remedy=problem.advice, details=details)))
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/json\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


class Unreadable:
    """Refuses what cannot be read; logged seldom, since anybody may send it without a token."""

    def __init__(self) -> None:
        self._unread, self._failed = Seldom(), Seldom()

    def refuse(self, connection: socket.socket, sender: str, raised: BaseException) -> None:
        """Answer, and read on for a moment; the caller closes ``connection``."""
        problem = problem_of(raised)
        self._log(sender, problem, raised, monotonic())
        with suppress(OSError):
            connection.settimeout(_LINGER_S)
            connection.sendall(answer(problem))
            connection.shutdown(socket.SHUT_WR)
            _linger(connection)

    def _log(self, sender: str, problem: HedgerowError, raised: BaseException, now_s: float) -> None:
        if isinstance(problem, Bug):
            if number := self._failed.due(now_s):
                _LOG.error("A request from %s failed%s", sender, _and_more(number), exc_info=raised)
        elif number := self._unread.due(now_s):
            _LOG.warning("What %s sent cannot be read: %s%s", sender, problem.key, _and_more(number))


def _and_more(number: int) -> str:
    return f" (and {number - 1} more since the last such line)" if number > 1 else ""


def _linger(connection: socket.socket) -> None:
    until_s, left = monotonic() + _LINGER_S, _LINGER_BYTES
    while left > 0 and (time_s := until_s - monotonic()) > 0:
        connection.settimeout(time_s)
        received = len(connection.recv(65536))
        if not received:
            return
        left -= received
