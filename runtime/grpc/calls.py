"""One call as logs, traces and collected data see it: an exchange like REST's, over a channel of its own.

metadata, message   →   Exchange(Request)     traceparent and x-request-id are headers here, too
answer or status    →   Response              with HTTP's status for it, and gRPC's in ``grpc-status``
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import msgspec
from google.protobuf.message import DecodeError

from runtime.errors import BadBody, BuffersFull
from runtime.exchange import Exchange, Headers, Request, Response
from runtime.front.door import Witness, no_witness
from runtime.front.limits import Buffered
from runtime.grpc.told import Refusal
from runtime.observing.tracing import GRPC_STATUS, Tracer

Message = Any
Context = Any
ROUTE: Final = "grpc"
_TYPE: Final = "application/grpc"
# nginx's number for a caller that left; gRPC's CANCELLED.
_GONE: Final = Response(499, b"", _TYPE, {GRPC_STATUS: "1"})
_FINE: Final = {GRPC_STATUS: "0"}


class Received(NamedTuple):
    """A request's message, and what it was made of; ``body`` is empty where nobody looks at bodies.

    ``message`` is None when the bytes are none: that is told where callers are known.
    """

    message: Message | None
    size_bytes: int
    body: bytes

    def understood(self) -> Message:
        """Raises BadBody."""
        if self.message is None:
            raise BadBody(problem="its bytes are no such message", hint="Use the protocol's own definitions.")
        return self.message


class Calls:
    """Makes the exchanges of one worker's calls. ``tracer`` None: no traces are sent. ``buffered`` counts REST's bodies, too."""

    def __init__(self, witness: Witness, tracer: Tracer | None, buffered: Buffered) -> None:
        self._witness, self._tracer, self._buffered = witness, tracer, buffered
        self._watched = witness is not no_witness
        # How many calls have come, for whoever waits until no more do (door.py).
        self.begun = 0

    def receives(self, message_class: Any) -> Callable[[bytes], Received]:  # noqa: ANN401 - protobuf has no types
        """What reads the bytes of a request."""
        read, watched = message_class.FromString, self._watched

        def receive(body: bytes) -> Received:
            try:
                message = read(body)
            except DecodeError:
                message = None
            return Received(message, len(body), body if watched else b"")

        return receive

    def begin(self, call: str, headers: Headers, received: Received, context: Context) -> Exchange:
        """``call`` is its whole name (``SERVICE/ModelReady``); ``headers`` become this exchange's own."""
        self.begun += 1
        caller = caller_of(context.peer()) if self._watched else ""
        request = Request("POST", f"/{call}", headers=headers, body=received.body, caller=caller)
        return Exchange(_CallChannel(self._witness), request, keep_alive=True)

    @contextmanager
    def scoring(self, exchange: Exchange, received: Received) -> Iterator[None]:
        """This one scores, for a caller that may: it has a place in its caller's trace, and its message is held so long.

        Raises BuffersFull.
        """
        exchange.route = ROUTE
        if self._tracer is not None:
            self._tracer.begin(exchange)
        fits = self._buffered.take(received.size_bytes)
        try:
            if not fits:
                raise BuffersFull
            yield
        finally:
            self._buffered.give(received.size_bytes)


class _CallChannel:
    """gRPC itself sends what a handler returns; this only tells the witness. Answers are whole, there are no parts of one."""

    __slots__ = ("_witness", "since")

    def __init__(self, witness: Witness) -> None:
        self._witness, self.since = witness, perf_counter()

    def send(self, exchange: Exchange, response: Response) -> None:
        self._witness(exchange, response)
        # The work knows its exchange: without this each call would leave a circle to the garbage collector.
        exchange.work = None

    send_head = send

    def send_part(self, _part: bytes) -> bool:
        return False

    def send_end(self, _exchange: Exchange, *, whole: bool) -> None: ...


def answered(exchange: Exchange, body: bytes) -> None:
    """It went well; ``body`` is the answer's message."""
    exchange.answer(Response(200, body, _TYPE, _FINE))


def refused(exchange: Exchange, refusal: Refusal) -> None:
    """It failed."""
    body = msgspec.json.encode({"error": refusal.text})
    exchange.answer(Response(refusal.status, body, headers={GRPC_STATUS: str(refusal.code.value[0])}))


def left(exchange: Exchange) -> None:
    """The caller went away, or its deadline passed: what still waits for its turn need not be scored."""
    exchange.gone = True
    exchange.answer(_GONE)


def headers_of(context: Context) -> Headers:
    """A call's metadata; names are lower case. Binary values are nobody's business here."""
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def caller_of(peer: str) -> str:
    """The address in gRPC's name for a caller (``ipv4:127.0.0.1:4711``, ``ipv6:%5B::1%5D:4711``); empty for a Unix socket."""
    family, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if family in ("ipv4", "ipv6") else ""
