"""Where a request stands in a distributed trace (W3C Trace Context), and what is told of it to an OpenTelemetry receiver.

    traceparent comes in    it goes on into the script and back to the caller as it came
    with a receiver         our own span takes its place in both: what the script does belongs under it

Without a receiver nothing of this file runs. With one, the loop only notes numbers; a thread makes the spans (otlp.py).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

import msgspec

from hedgerow.clock import Clock
from runtime.exchange import Exchange, Response
from runtime.observing.outbox import Outbox
from runtime.observing.trace_context import trace_context

# Where an answer over gRPC says its own status, beside HTTP's.
GRPC_STATUS = "grpc-status"
_MOST_TRACED = 8192
_SAMPLED = 0x01
_IDS_AT_ONCE = 512


class Trace(msgspec.Struct, frozen=True, gc=False):
    """One sampled request's place. ``parent_id`` is empty where the trace begins here."""

    trace_id: str
    span_id: str
    parent_id: str
    state: str
    receiving_since: float


class TracedRequest(msgspec.Struct, frozen=True):
    """What is told of one request. Times are perf_counter's; None where it did not get so far."""

    trace: Trace
    name: str
    method: str
    path: str
    status: int
    model: tuple[str, str] | None
    received_at: float
    answered_at: float
    # gRPC's own status of a call; None for REST.
    grpc_status: int | None = None
    asked_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    # What of the time before the run was reading the body.
    read_s: float = 0.0
    rows: int = 0
    merged: int = 0


class SpanReceiver(Protocol):
    """Where traced requests go (otlp.py)."""

    def take(self, requests: list[TracedRequest], epoch_s: float) -> None: ...


class Tracer:
    """Begins and ends traces. Both belong to the loop's thread."""

    def __init__(self, receiver: SpanReceiver, clock: Clock, dropped: Callable[[], None], *, sample: float) -> None:
        self._receiver, self._clock, self._sample = receiver, clock, sample
        self._outbox: Outbox[TracedRequest] = Outbox("traces", self._hand_over, dropped, most_items=_MOST_TRACED, period_s=0.5)
        self._span_ids: list[str] = []
        self.start, self.stop = self._outbox.start, self._outbox.stop

    def begin(self, exchange: Exchange) -> None:
        """Give the request a span of ours and say so in its headers, which scripts and the answer take theirs from."""
        headers = exchange.request.headers
        given = trace_context(headers) if "traceparent" in headers else None
        if not given:
            sampled = random.random() < self._sample  # noqa: S311 - chance, not a secret
            trace_id, parent_id, state = self._new_id() + self._new_id(), "", ""
        else:
            parent = given["traceparent"]
            trace_id, parent_id, state = parent[3:35], parent[36:52], given.get("tracestate", "")
            sampled = bool(int(parent[53:55], 16) & _SAMPLED)
        span_id = self._new_id()
        told = {**headers, "traceparent": f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"}
        exchange.request = msgspec.structs.replace(exchange.request, headers=told)
        if sampled:
            exchange.trace = Trace(trace_id, span_id, parent_id, state, exchange.receiving_since)

    def sent(self, exchange: Exchange, response: Response) -> None:
        """A witness of front/door.py."""
        trace = exchange.trace
        if not isinstance(trace, Trace):
            return
        request, work = exchange.request, exchange.work
        done = () if work is None else (work.asked_at, work.started_at, work.finished_at, work.read_s, work.rows, work.merged)
        self._outbox.put(
            TracedRequest(
                trace,
                exchange.route,
                request.method,
                request.path,
                response.status,
                exchange.model,
                exchange.started_at,
                perf_counter(),
                int(response.headers[GRPC_STATUS]) if exchange.route == "grpc" else None,
                *done,
            )
        )

    def _hand_over(self, requests: list[TracedRequest]) -> None:
        if requests:
            self._receiver.take(requests, self._clock.now().timestamp() - perf_counter())

    def _new_id(self) -> str:
        """Eight random bytes in hexadecimal, of which the kernel is asked for many at a time."""
        if not self._span_ids:
            text = os.urandom(8 * _IDS_AT_ONCE).hex()
            # All zeros means "none"; that it comes up is as likely as a collision.
            self._span_ids = [text[at : at + 16] for at in range(0, len(text), 16)]
        return self._span_ids.pop()
