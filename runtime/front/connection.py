"""One caller's connection: requests out one at a time and in order, answers back.

States of a connection, each with its limit (swept by door.py twice a second):

    idle        nothing of a request has come          keepalive_s, then it is closed
    receiving   a request has begun                    receive_timeout_s, then 408
    answering   a request is being answered            scoring has time-outs of its own
    sending     the caller does not take its answer    send_timeout_s without a byte taken, then it is cut off
    lingering   the last answer is out                 what still comes is dropped until the caller closes, or linger_s

receiving.py makes requests of the bytes. Pipelined requests wait for the one before them, so answers keep their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Literal, Protocol

from runtime.exchange import Exchange, Request, Response
from runtime.front import wire
from runtime.front.known_heads import KnownHeads
from runtime.front.limits import (
    IN_A_ROW_BYTES,
    JOINED_BYTES,
    PIPELINED,
    SLICE_BYTES,
    SMALL_BODY_BYTES,
    Buffered,
    HttpLimits,
)
from runtime.front.receiving import LetsIn, Receiving
from runtime.front.socket_queue import bytes_in_kernel
from runtime.front.traffic import Traffic

_log = logging.getLogger("hedgerow.runtime.front")

__all__ = ["Connection", "Desk", "LetsIn", "State"]

State = Literal["idle", "receiving", "answering", "sending", "lingering"]
# Requests answered on the spot before other connections get their turn.
_ROUNDS = 32


class Desk(Protocol):
    """Where connections bring their requests (door.py)."""

    limits: HttpLimits
    traffic: Traffic
    buffered: Buffered
    known: KnownHeads
    # Asked before a large body is read; None: everybody may come in.
    lets_in: LetsIn | None

    @property
    def draining(self) -> bool: ...

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...

    def handle(self, exchange: Exchange) -> None: ...

    def refusal(self, status: int, request: Request, problem: str) -> Response: ...

    def sent(self, exchange: Exchange, response: Response) -> None: ...


class Connection(asyncio.Protocol):
    """An asyncio protocol for one connection; it is its exchanges' channel."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._receiving = Receiving(self, desk.limits.body_bytes, desk.buffered, desk.lets_in, desk.known)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        # Whether the caller of the exchange speaks HTTP/1.0.
        self._old = False
        # Requests that came before their turn: whether the connection goes on after them, and whether they are HTTP/1.0. One with
        # a Response is refused with it.
        self._waiting: deque[tuple[Request, bool | Response, bool]] = deque()
        # No more requests are taken; and: the last answer is out.
        self._ending = self._lingering = False
        self._caller_ended = False
        self._writable = self._reading = True
        self._advancing = False
        self._unsent = self._untaken = self._in_a_row = self._held = 0
        self._linger_until = 0.0
        self._chunked = False
        # The head of an answer that comes in parts, until its end.
        self._streamed: Response | None = None
        self.since = self._loop.time()

    # What the event loop calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream transport: the door makes no others
        peer = transport.get_extra_info("peername")
        self._receiving.caller = peer[0] if isinstance(peer, tuple) else ""
        self._desk.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ending = self._lingering = True
        self._forget_waiting()
        self._count_unsent(0)
        # A stream that waits for this caller waits in vain.
        self._writable = True
        if self._exchange is not None:
            self._exchange.gone = True
        self._desk.closed(self)

    def data_received(self, data: bytes) -> None:
        self._desk.traffic.received.add(len(data))
        if self._ending:
            if self._lingering:
                self.since = self._loop.time()
            return
        receiving = self._receiving
        if not receiving.in_message:
            self.since = self._loop.time()
        if self._exchange is None and not self._waiting and self._writable and (request := receiving.at_once(data)) is not None:
            self._old = False
            self._begin(request)
            return
        receiving.feed(data)
        self._advance()
        if len(data) > SLICE_BYTES:
            self._let_others_in(len(data))

    def eof_received(self) -> bool:
        """The caller sends no more. It may still read (half-closed): what it asked is answered, then the connection ends.

        A caller that went away looks the same until something is sent to it; so work that has not begun is dropped.
        """
        self._caller_ended = True
        if self._receiving.in_message and not self._ending:
            self.refuse(400, self._receiving.how_far())
            self._advance()
        self._ending = True
        if self._exchange is not None:
            self._exchange.gone = True
        return self._exchange is not None or bool(self._waiting)

    def pause_writing(self) -> None:
        self._writable = False
        self.since = self._loop.time()
        if self._transport is not None:
            self._count_unsent(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._writable = True
        self.since = self._loop.time()
        self._count_unsent(0)
        self._advance()

    # What the receiving part says -------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether another request may be parsed."""
        return len(self._waiting) < PIPELINED and not self._ending

    def came(self, request: Request, keep_alive: bool, old: bool) -> None:
        """A whole request."""
        self._waiting.append((request, keep_alive, old))

    def refuse(self, status: int, problem: str) -> None:
        """The request being received is answered with an error when its turn comes, and nothing after it is read."""
        if self._ending:
            return
        self._ending = True
        request = self._receiving.question()
        self._receiving.stop()
        self._waiting.append((request, self._desk.refusal(status, request, problem), False))

    # Answers ----------------------------------------------------------------------------------------------------------

    def send(self, exchange: Exchange, response: Response) -> None:
        ending = self._how_it_goes_on(exchange)
        self._write_whole(exchange.request, response, ending)
        self._finish(exchange, close=ending is wire.CLOSE)
        self._desk.sent(exchange, response)
        # The work knows its exchange: without this each request would leave a circle to the garbage collector.
        exchange.work = None

    def send_head(self, exchange: Exchange, response: Response) -> None:
        # HTTP/1.0 knows no chunks: there a stream ends with its connection.
        self._chunked = not self._old
        if self._transport is not None:
            if self._chunked:
                self._write(wire.chunked_head(response, ending=self._how_it_goes_on(exchange)))
            else:
                self._write(wire.unbounded_head(response))
            self.send_part(response.body)
        self._streamed = response

    def send_part(self, part: bytes) -> bool:
        if self._transport is not None and part:
            self._write(wire.chunk(part) if self._chunked else part)
        return self._writable

    def send_end(self, exchange: Exchange, *, whole: bool) -> None:
        if self._streamed is not None:
            self._desk.sent(exchange, self._streamed)
            exchange.work = None
            self._streamed = None
        if self._transport is not None and not whole:
            self._transport.abort()
        elif self._transport is not None and self._chunked:
            self._write(wire.LAST_CHUNK)
        self._finish(exchange, close=not self._chunked or self._how_it_goes_on(exchange) is wire.CLOSE)

    # Time and the end, called by the door -----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        if not self._writable:
            return "sending"
        if self._lingering:
            return "lingering"
        if self._exchange is not None:
            return "answering"
        return "receiving" if self._receiving.in_message or self._waiting else "idle"

    def sweep(self, now_s: float) -> None:
        """Enforce the limit of the state that this connection is in."""
        limits, state, spent_s = self._desk.limits, self.state, now_s - self.since
        if state == "sending":
            self._sweep_sending(now_s)
        elif state == "receiving" and spent_s > limits.receive_timeout_s:
            self.refuse(408, self._receiving.how_far())
            self._advance()
        elif state == "idle" and spent_s > limits.keepalive_s:
            self.close()
        elif state == "lingering" and (spent_s > limits.linger_silent_s or now_s > self._linger_until):
            # No abort: what the caller has not taken yet is still on its way.
            self.close()

    def close(self) -> None:
        """End it once everything is written."""
        self._ending = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it now, what is still being written included."""
        self._ending = True
        self._count_unsent(0)
        if self._transport is not None:
            self._transport.abort()

    # Inside -----------------------------------------------------------------------------------------------------------

    def _write(self, text: bytes) -> None:
        if self._transport is not None:
            self._desk.traffic.sent.add(len(text))
            self._transport.write(text)

    def _write_whole(self, request: Request, response: Response, ending: str) -> None:
        text, body = wire.whole_head(response, ending), response.body
        if body and request.method != "HEAD" and response.status not in wire.WITHOUT_BODY:
            if len(body) <= JOINED_BYTES:
                text += body
            else:
                self._write(text)
                text = body
        self._write(text)

    def _how_it_goes_on(self, exchange: Exchange) -> str:
        if not exchange.keep_alive:
            return wire.CLOSE
        if (self._desk.draining or self._ending) and not self._waiting and not self._receiving.under_way:
            # What has come already is answered first.
            return wire.CLOSE
        return wire.KEEP_OLD if self._old else wire.KEEP

    def _finish(self, exchange: Exchange, *, close: bool) -> None:
        if self._exchange is not exchange:
            return
        self._exchange = None
        if self._held > SMALL_BODY_BYTES:
            # What came, which may be packed, or released by now.
            self._desk.buffered.give(self._held)
        self.since = self._loop.time()
        if close:
            self._linger(unread=False)
        elif self._waiting or not self._reading or not self._writable or self._receiving.wants_a_look:
            self._advance()

    def _give_back(self, request: Request) -> None:
        if len(request.body) > SMALL_BODY_BYTES:
            self._desk.buffered.give(len(request.body))

    def _linger(self, *, unread: bool) -> None:
        """The last answer is written. Closing now would reset the connection if bytes are unread, and take the answer with it."""
        transport = self._transport
        self._ending = self._lingering = True
        self._forget_waiting()
        if transport is None:
            return
        self.since = self._loop.time()
        self._linger_until = self.since + self._desk.limits.linger_s
        if transport.can_write_eof() and not self._caller_ended:
            transport.write_eof()
        elif self._caller_ended or not unread:
            # TLS has no half-closed connections: only where a body is known to be on its way, its caller is left to close.
            transport.close()
        self._pace_reading()

    def _forget_waiting(self) -> None:
        self._receiving.stop()
        for request, _, _ in self._waiting:
            self._give_back(request)
        self._waiting.clear()

    def _advance(self) -> None:
        """Begin what waits, one after another; an answer that comes at once brings the next round, not a deeper call."""
        if self._advancing:
            return
        self._advancing = True
        waiting, receiving, rounds = self._waiting, self._receiving, _ROUNDS
        while self._exchange is None and self._writable and not self._lingering:
            if not waiting:
                if not receiving.held_back:
                    break
                receiving.go_on()
            elif rounds:
                rounds -= 1
                self._begin_next(*waiting.popleft())
            else:
                self._loop.call_soon(self._advance)
                break
        self._advancing = False
        if receiving.wants_continue and self._exchange is None and not waiting:
            # A caller that asks before it sends its body, and everything before it is answered.
            receiving.wants_continue = False
            self._write(wire.CONTINUE)
        if waiting or receiving.held_back or not self._reading or not self._writable:
            self._pace_reading()

    def _begin_next(self, request: Request, keep_alive: bool | Response, old: bool) -> None:
        if isinstance(keep_alive, Response):
            self._write_whole(request, keep_alive, wire.CLOSE)
            self._desk.sent(Exchange(self, request, keep_alive=False), keep_alive)
            self._linger(unread=True)
            return
        self._old = old
        self._begin(request, keep_alive=keep_alive)

    def _begin(self, request: Request, *, keep_alive: bool = True) -> None:
        self._held = len(request.body)
        self._exchange = exchange = Exchange(self, request, keep_alive=keep_alive)
        exchange.gone = self._caller_ended
        try:
            self._desk.handle(exchange)
        except Exception:  # noqa: BLE001 - one request's failure is its own, even when it is ours
            _log.critical("Hedgerow failed on a request; please report it", exc_info=True)
            exchange.answer(self._desk.refusal(500, request, ""))

    def _pace_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        takes_more = self._ending or (self.has_room() and not self._receiving.held_back)
        wanted = self._lingering or (takes_more and self._writable)
        if wanted != self._reading:
            self._reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _let_others_in(self, size: int) -> None:
        """The loop would go on with this connection as long as its bytes come, megabytes of them."""
        self._in_a_row += size
        if self._in_a_row > IN_A_ROW_BYTES and self._reading and self._transport is not None:
            self._in_a_row = 0
            self._reading = False
            self._transport.pause_reading()
            self._loop.call_soon(self._pace_reading)

    def _sweep_sending(self, now_s: float) -> None:
        transport = self._transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        self._count_unsent(unsent)
        # The kernel's part counts too: it takes more from us only after a third of its megabytes went out.
        untaken = unsent + bytes_in_kernel(transport.get_extra_info("socket"))
        if untaken < self._untaken:
            self.since = now_s
        self._untaken = untaken
        if now_s - self.since > self._desk.limits.send_timeout_s:
            self.abort()

    def _count_unsent(self, unsent: int) -> None:
        self._desk.buffered.held += unsent - self._unsent
        self._unsent = unsent
