"""One caller's connection: bytes in, requests out one at a time and in order, answers back.

States of a connection, each with its limit (swept by front/door.py twice a second):

    idle        nothing of a request has come          keepalive_s, then it is closed
    receiving   a request has begun                    receive_timeout_s, then 408
    answering   a request is being answered            scoring has time-outs of its own
    sending     the caller does not take its answer    send_timeout_s, then it is cut off

llhttp (through httptools) parses and refuses what is no HTTP/1.x, Content-Length beside Transfer-Encoding included; what it
leaves open (sizes, counts, time) is limited here. Pipelined requests wait for the one before them, so answers keep their order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal, Protocol
from urllib.parse import unquote

import httptools

from runtime.exchange import Exchange, Request, Response
from runtime.front import wire
from runtime.front.limits import HEAD_BYTES, HEADER_COUNT, PIPELINED, TARGET_BYTES, HttpLimits

State = Literal["idle", "receiving", "answering", "sending"]


class Desk(Protocol):
    """Where connections bring their requests (front/door.py)."""

    limits: HttpLimits
    draining: bool

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...

    def handle(self, exchange: Exchange) -> None: ...

    def refusal(self, status: int, request: Request, problem: str) -> Response: ...

    def sent(self, exchange: Exchange, response: Response) -> None: ...


class Connection(asyncio.Protocol):
    """An asyncio protocol for one connection; it is its exchanges' channel."""

    # What a request that is being received has so far; made anew by on_message_begin.
    _url: bytes
    _headers: dict[str, str]
    _header_count: int
    _body: list[bytes]
    _body_bytes: int
    _expected_bytes: int | None
    _head_done: bool

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._caller = ""
        self._exchange: Exchange | None = None
        # Requests that came before their turn; a Response stands for a request that is refused when its turn comes.
        self._waiting: deque[tuple[Request, bool] | Response] = deque()
        self._in_message = False
        self._head_bytes = 0
        self._ending = False
        self._writable = True
        self._reading = True
        self._advancing = False
        self._chunked = False
        self.since = asyncio.get_running_loop().time()

    # What the event loop calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream transport: the door makes no others
        peer = transport.get_extra_info("peername")
        self._caller = peer[0] if isinstance(peer, tuple) else ""
        self._desk.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ending = True
        self._waiting.clear()
        if self._exchange is not None:
            self._exchange.gone = True
        self._desk.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        if not self._in_message:
            self._begin_receiving()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request itself is whole; other protocols are not spoken here, and what follows it would be one.
            self._ending = True
        except httptools.HttpParserError as problem:
            self._refuse(400, f"it is no valid HTTP ({problem})")
        else:
            if self._in_message and not self._head_done:
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES:
                    self._refuse(431, f"its head is longer than {HEAD_BYTES} bytes")
        self._advance()

    def eof_received(self) -> bool:
        """The caller sends no more. It may still read (half-closed): what it asked is answered, then the connection ends.

        A caller that went away looks the same until something is sent to it; so work that has not begun is dropped.
        """
        if self._in_message and not self._ending:
            self._refuse(400, self._how_far())
            self._advance()
        self._ending = True
        if self._exchange is None and not self._waiting:
            return False
        if self._exchange is not None:
            self._exchange.gone = True
        return True

    def pause_writing(self) -> None:
        self._writable = False
        self.since = asyncio.get_running_loop().time()

    def resume_writing(self) -> None:
        self._writable = True
        self.since = asyncio.get_running_loop().time()
        self._advance()

    # What the parser calls --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._header_count = self._body_bytes = 0
        self._body = []
        self._expected_bytes = None
        self._head_done = False
        self._in_message = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > TARGET_BYTES:
            self._refuse(414, f"its target is longer than {TARGET_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._header_count += 1
        if self._header_count > HEADER_COUNT:
            self._refuse(431, f"it has more than {HEADER_COUNT} headers")
        elif key in self._headers:
            if key in ("content-length", "host", "content-type"):
                self._refuse(400, f"it has {key} twice")
            self._headers[key] += f", {text}"
        else:
            self._headers[key] = text

    def on_headers_complete(self) -> None:
        self._head_done = True
        length = self._headers.get("content-length")
        if length is not None and length.isdigit():
            self._expected_bytes = int(length)
            if self._expected_bytes > self._desk.limits.body_bytes:
                self._refuse(413, "")
        if "expect" in self._headers and not self._ending:
            self._welcome_body()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._ending:
            return
        if self._body_bytes > self._desk.limits.body_bytes:
            self._refuse(413, "")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._head_bytes = 0
        if self._ending:
            return
        parser = self._parser
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        path, _, query = self._url.decode("latin-1").partition("?")
        if "%" in path:
            path = unquote(path)
        request = Request(parser.get_method().decode("latin-1"), path, query, self._headers, body, self._caller)
        keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        self._waiting.append((request, keep_alive))

    # Answers ----------------------------------------------------------------------------------------------------------

    def send(self, exchange: Exchange, response: Response) -> None:
        transport = self._transport
        if transport is not None:
            close = not exchange.keep_alive or self._desk.draining or self._ends_after_this
            transport.write(wire.whole(response, close=close, with_body=exchange.request.method != "HEAD"))
            self._finish(close=close)
        self._desk.sent(exchange, response)

    def send_head(self, exchange: Exchange, response: Response) -> None:
        # Streams end their connection on HTTP/1.0, whose callers know no chunks; keep_alive is False for them.
        self._chunked = exchange.keep_alive
        if self._transport is not None:
            close = self._desk.draining or self._ends_after_this
            head = wire.chunked_head(response, close=close) if self._chunked else wire.unbounded_head(response)
            self._transport.write(head)
            if response.body:
                self.send_part(response.body)
        self._desk.sent(exchange, response)

    def send_part(self, part: bytes) -> bool:
        if self._transport is not None and part:
            self._transport.write(wire.chunk(part) if self._chunked else part)
        return self._writable

    def send_end(self, exchange: Exchange, *, whole: bool) -> None:
        if self._transport is None:
            return
        if not whole:
            self._transport.abort()
            return
        if self._chunked:
            self._transport.write(wire.LAST_CHUNK)
        self._finish(close=not self._chunked or self._desk.draining or self._ends_after_this)

    # Time and the end, called by the door -----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        if not self._writable:
            return "sending"
        if self._exchange is not None:
            return "answering"
        return "receiving" if self._in_message else "idle"

    def sweep(self, now_s: float) -> None:
        """Enforce the limit of the state that this connection is in."""
        limits, state, spent_s = self._desk.limits, self.state, now_s - self.since
        if state == "sending" and spent_s > limits.send_timeout_s and self._transport is not None:
            self._transport.abort()
        elif state == "receiving" and spent_s > limits.receive_timeout_s:
            self._refuse(408, self._how_far())
            self._advance()
        elif state == "idle" and spent_s > limits.keepalive_s:
            self.close()

    def close(self) -> None:
        """End it, what is still being written included."""
        self._ending = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it now."""
        self._ending = True
        if self._transport is not None:
            self._transport.abort()

    # Inside -----------------------------------------------------------------------------------------------------------

    def _begin_receiving(self) -> None:
        self.since = asyncio.get_running_loop().time()

    @property
    def _ends_after_this(self) -> bool:
        return self._ending and not self._waiting

    def _finish(self, *, close: bool) -> None:
        self._exchange = None
        self.since = asyncio.get_running_loop().time()
        if close:
            self.close()
        else:
            self._advance()

    def _advance(self) -> None:
        """Begin what waits, one after another; an answer that comes at once brings the next round, not a deeper call."""
        if self._advancing:
            return
        self._advancing = True
        while self._exchange is None and self._waiting and self._writable and self._transport is not None:
            head = self._waiting.popleft()
            if isinstance(head, Response):
                self._transport.write(wire.whole(head, close=True))
                self.close()
                break
            request, keep_alive = head
            self._exchange = Exchange(self, request, keep_alive=keep_alive)
            self._desk.handle(self._exchange)
        self._advancing = False
        self._pace_reading()

    def _pace_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        wanted = len(self._waiting) < PIPELINED and self._writable
        if wanted != self._reading:
            self._reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _refuse(self, status: int, problem: str) -> None:
        """The request being received is answered with an error when its turn comes, and nothing after it is read."""
        if self._ending:
            return
        self._ending = True
        self._in_message = False
        headers = getattr(self, "_headers", {})
        target = getattr(self, "_url", b"").decode("latin-1").partition("?")[0]
        request = Request("", target, "", headers, b"", self._caller)
        self._waiting.append(self._desk.refusal(status, request, problem))

    def _welcome_body(self) -> None:
        """A caller that asks before it sends its body; one whose request waits behind others asks in vain and sends it late."""
        asks = self._headers["expect"].lower() == "100-continue"
        if asks and self._exchange is None and not self._waiting and self._transport is not None:
            self._transport.write(wire.CONTINUE)

    def _how_far(self) -> str:
        if not self._head_done:
            return "it ended within its head"
        whole = f" of {self._expected_bytes}" if self._expected_bytes is not None else ""
        return f"it ended after {self._body_bytes}{whole} bytes"
