"""A line for every answer, on stdout: azmlinfsrv's ``POST /score 200 12.345ms 17``, or one JSON object.

The loop notes a few numbers; a thread of its own makes the lines and writes them. Whoever does not take the lines (a full pipe)
loses them, counted, instead of holding up requests.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter

import msgspec

from hedgerow.clock import Clock
from runtime.exchange import Exchange, Response
from runtime.observing.outbox import Outbox
from runtime.settings import AccessLogFormat
from runtime.timestamps import utc_text

_MOST_LINES = 20_000
_encoder = msgspec.json.Encoder()
# What strangers send must not look like a line of ours, nor command the terminal.
_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0))}


class Entry(msgspec.Struct, omit_defaults=True, gc=False):
    """One answered request. Times in milliseconds, sizes of the bodies in bytes."""

    time: str
    pid: int
    method: str
    path: str
    status: int
    duration_ms: float
    bytes_in: int
    bytes_out: int
    route: str = ""
    caller: str = ""
    request_id: str = ""
    client_request_id: str = ""
    trace_id: str = ""
    model: str | None = None
    version: str | None = None
    queued_ms: float | None = None
    ran_ms: float | None = None
    rows: int | None = None
    batch: int | None = None


class AccessLog:
    """A witness of front/door.py. ``descriptor`` is where lines go."""

    def __init__(self, log_format: AccessLogFormat, clock: Clock, dropped: Callable[[], None], *, descriptor: int = 1) -> None:
        self._clock, self._descriptor = clock, descriptor
        self._line = _json_line if log_format == "json" else _text_line
        self._outbox: Outbox[tuple[object, ...]] = Outbox("access-log", self._write, dropped, most_items=_MOST_LINES)
        self.stop = self._outbox.stop

    def start(self) -> None:
        self._outbox.start()

    def sent(self, exchange: Exchange, response: Response) -> None:
        """On the loop, for every answer."""
        request = exchange.request
        headers = request.headers
        self._outbox.put(
            (
                perf_counter(),
                exchange.started_at,
                request.method,
                request.path,
                response.status,
                exchange.body_bytes,
                exchange.streamed_bytes or len(response.body),
                exchange.route,
                request.caller,
                exchange.request_id or response.headers.get("x-request-id") or headers.get("x-request-id", ""),
                headers.get("x-ms-client-request-id", ""),
                headers.get("traceparent", ""),
                exchange.model,
                _work_of(exchange),
            )
        )

    def _write(self, noted: list[tuple[object, ...]]) -> None:
        if not noted:
            return
        epoch_s = self._clock.now().timestamp() - perf_counter()
        pid = os.getpid()
        text = b"".join([self._line(_entry(epoch_s, pid, *one)) for one in noted])  # type: ignore[arg-type]  # what sent() put together
        view = memoryview(text)
        while view:
            view = view[os.write(self._descriptor, view) :]


_Work = tuple[float, float, int, int]


def _work_of(exchange: Exchange) -> _Work | None:
    work = exchange.work
    return None if work is None else (work.queued_s, work.ran_s, work.rows, work.merged)


def _entry(
    epoch_s: float,
    pid: int,
    ended_at: float,
    started_at: float,
    method: str,
    path: str,
    status: int,
    bytes_in: int,
    bytes_out: int,
    route: str,
    caller: str,
    request_id: str,
    client_request_id: str,
    traceparent: str,
    model: tuple[str, str] | None,
    work: _Work | None,
) -> Entry:
    name, version = model or (None, None)
    queued_s, ran_s, rows, batch = work or (None, None, None, None)
    return Entry(
        utc_text(epoch_s + ended_at),
        pid,
        method,
        path,
        status,
        round((ended_at - started_at) * 1000, 3),
        bytes_in,
        bytes_out,
        route,
        caller,
        request_id,
        client_request_id,
        traceparent[3:35],
        name,
        version,
        None if queued_s is None else round(queued_s * 1000, 3),
        None if ran_s is None else round(ran_s * 1000, 3),
        rows,
        batch,
    )


def _json_line(entry: Entry) -> bytes:
    return _encoder.encode(entry) + b"\n"


def _text_line(entry: Entry) -> bytes:
    when = entry.time[:23].replace("T", " ")
    path = entry.path if entry.path.isprintable() else entry.path.translate(_CONTROL)
    what = f"{entry.method or '-'} {path} {entry.status} {entry.duration_ms:.3f}ms {entry.bytes_out}"
    return f"{when} I [{entry.pid}] access - {what}\n".encode("utf-8", "replace")
