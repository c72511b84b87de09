"""What a contract face takes and gives: one request and one response as plain bytes, whatever HTTP stands in front.

    Connection (front/)  makes an Exchange for each request  →  a face (aml/, oip/) scores  →  exchange.answer(response)

An answer may come at once or later; faces never wait. Everything here belongs to the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Protocol

import msgspec

JSON_TYPE = "application/json"
HTML_TYPE = "text/html; charset=utf-8"
Headers = dict[str, str]
# Whoever keeps requests (observing/collecting.py) keeps none with larger bodies.
KEPT_BYTES = 8 * 1024 * 1024


class Request(msgspec.Struct, frozen=True):
    """A whole HTTP request. Header names are lower case; ``query`` is still percent-encoded, ``path`` is not.

    Requests with the same head share their ``headers`` (front/known_heads.py): nobody may change them.
    """

    method: str
    path: str = "/"
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    # Where the caller is, for logs; empty for a Unix socket.
    caller: str = ""


class Response(msgspec.Struct, frozen=True):
    """A whole HTTP response. ``repeated`` are header lines beyond ``headers``, for names that stand more than once.

    ``lines`` are further headers as they go over the wire, ``name: value`` and a line's end each, made of nothing that came from
    outside.
    """

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Headers = {}
    repeated: tuple[tuple[str, str], ...] = ()
    lines: str = ""


class Channel(Protocol):
    """The caller's connection, as an exchange sees it. ``since``: when its state began, on the clock of the event loop."""

    since: float

    def send(self, exchange: Exchange, response: Response) -> None: ...

    def send_head(self, exchange: Exchange, response: Response) -> None: ...

    def send_part(self, part: bytes) -> bool: ...

    def send_end(self, exchange: Exchange, *, whole: bool) -> None: ...


class Work(Protocol):
    """What was done for a request (models/jobs.py, scripts/calls.py). ``merged`` is how many requests shared the run.

    Times are perf_counter's, 0 for what has not happened.
    """

    rows: int
    asked_at: float

    @property
    def merged(self) -> int: ...

    @property
    def started_at(self) -> float: ...

    @property
    def finished_at(self) -> float: ...

    @property
    def read_s(self) -> float: ...

    @property
    def queued_s(self) -> float: ...

    @property
    def ran_s(self) -> float: ...


class Exchange:
    """One request on its way. Exactly one of ``answer`` and ``stream`` is called; what comes after the first is dropped.

    ``gone`` is set when the caller went away: what still waits for its turn need not be scored. ``model`` (name and version) and
    ``work`` are set by whoever scores, before the answer, ``request_id`` by whoever makes one up; logs, traces and collected data
    tell them. ``trace`` is for observing/tracing.py alone.
    """

    __slots__ = (
        "_answered",
        "_channel",
        "_released_bytes",
        "gone",
        "keep_alive",
        "model",
        "request",
        "request_id",
        "route",
        "started_at",
        "streamed_bytes",
        "trace",
        "work",
    )

    def __init__(self, channel: Channel, request: Request, *, keep_alive: bool) -> None:
        self._channel = channel
        self.request = request
        self.keep_alive = keep_alive
        self.gone = False
        self.route = self.request_id = ""
        self.model: tuple[str, str] | None = None
        self.work: Work | None = None
        self.trace: object = None
        self.streamed_bytes = 0
        self.started_at = perf_counter()
        self._answered = False
        self._released_bytes = 0

    @property
    def body_bytes(self) -> int:
        """How long the request's body is, or was."""
        return self._released_bytes or len(self.request.body)

    def release_body(self) -> None:
        """It was read, on whatever thread: what is larger than anybody keeps need not be held while it is scored."""
        size = len(self.request.body)
        if size > KEPT_BYTES:
            self._released_bytes = size
            self.request = msgspec.structs.replace(self.request, body=b"")

    @property
    def receiving_since(self) -> float:
        """When the first byte of this request came, on the clock of the event loop; asked for before it is answered."""
        return self._channel.since

    def answer_through(self, make: Callable[[Channel], Channel]) -> None:
        """From now on, answer through what ``make`` puts before the caller's connection."""
        self._channel = make(self._channel)

    @property
    def answered(self) -> bool:
        return self._answered

    def answer(self, response: Response) -> None:
        """Send the whole answer. The first one counts."""
        if not self._answered:
            self._answered = True
            self._channel.send(self, response)

    def begin(self, response: Response) -> None:
        """Send the head of an answer whose body follows in parts; ``response.body`` is its first part."""
        if not self._answered:
            self._answered = True
            self._channel.send_head(self, response)

    def part(self, part: bytes) -> bool:
        """Send one part; False when the caller reads too slowly and the sender should wait."""
        self.streamed_bytes += len(part)
        return self._channel.send_part(part)

    def end(self, *, whole: bool = True) -> None:
        """The last part was sent. Not ``whole``: the connection is cut, so that the caller notices."""
        self._channel.send_end(self, whole=whole)


def with_headers(response: Response, added: Headers | Iterable[tuple[str, str]]) -> Response:
    """The same response with more headers."""
    headers = {**response.headers, **dict(added)}
    return Response(response.status, response.body, response.content_type, headers, response.repeated, response.lines)
