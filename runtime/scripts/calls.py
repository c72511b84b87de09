"""What the pool keeps: one request on its way through a script's process, one process and what it is doing."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from runtime.exchange import Exchange
from runtime.observing.trace_context import trace_context
from runtime.scripts.frames import Answer, Call, Head, Ready
from runtime.scripts.link import Link


class Taker(Protocol):
    """Who gets what became of a call (the AML face)."""

    def answered(self, call: ScriptCall, answer: Answer) -> None: ...

    def began(self, call: ScriptCall, head: Head) -> None: ...

    def failed(self, call: ScriptCall, problem: Exception) -> None: ...


class ScriptCall:
    """One request for the script. ``started_at`` is when a process got it."""

    __slots__ = ("asked_at", "exchange", "finished_at", "frame", "id", "late", "started_at", "streaming", "taker")
    # What a request to a model has as well, for logs and traces of both (exchange.Work).
    rows = merged = 1
    read_s = 0.0

    def __init__(self, exchange: Exchange, taker: Taker, body: bytes) -> None:
        self.exchange, self.taker = exchange, taker
        self.id = 0
        self.asked_at = perf_counter()
        self.started_at = self.finished_at = 0.0
        self.late = self.streaming = False
        self.frame = Call(0, body)

    @property
    def queued_s(self) -> float:
        return max(self.started_at - self.asked_at, 0.0)

    @property
    def ran_s(self) -> float:
        """Until its answer was back here; 0 before that."""
        return max(self.finished_at - self.started_at, 0.0)


@dataclass(frozen=True)
class PoolLimits:
    """``workers`` answer, ``standbys`` wait. ``memory_bytes`` is the most of one process; 0: no limit.

    ``spare_cores`` is how many there are beyond the workers'.
    """

    workers: int
    standbys: int
    queue_wait_s: float
    timeout_s: float
    memory_bytes: int = 0
    spare_cores: int = 0

    @property
    def early_standbys(self) -> int:
        """Standbys that are started beside the workers: where they take no worker's core, and so cost no time to readiness."""
        return max(0, min(self.standbys, self.spare_cores))


class Host:
    """One process and what it is doing. An ``early`` standby waits with init() until a worker has done its own."""

    def __init__(self, *, early: bool = False) -> None:
        self.early = early
        self.link: Link | None = None
        self.ready: Ready | None = None
        self.calls: dict[int, ScriptCall] = {}
        # Is to take no more calls; and: has begun to end, whoever wanted it.
        self.retiring = self.leaving = False

    @property
    def alive(self) -> bool:
        return not self.retiring and not self.leaving

    @property
    def serving(self) -> bool:
        return self.ready is not None and self.alive

    @property
    def free(self) -> bool:
        return self.ready is not None and self.alive and len(self.calls) < self.ready.calls

    def frame_for(self, call: ScriptCall) -> Call:
        """What the process gets of a request: its head only when the script looks at it."""
        request = call.exchange.request
        trace = trace_context(request.headers) if "traceparent" in request.headers else {}
        body, context = call.frame.body, (trace.get("traceparent", ""), trace.get("tracestate", ""))
        if self.ready is not None and self.ready.wants_head:
            return Call(call.id, body, request.method, request.path, request.query, request.headers, request.caller, *context)
        return Call(call.id, body, request.method, "", "", {}, "", *context)
