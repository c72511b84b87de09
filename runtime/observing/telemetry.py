"""What an edge module tells its device: one small JSON message for every second in which something was scored.

A request only adds numbers under a lock; one thread per worker makes the messages and posts them. A message keeps its id
over all retries, so the receiver can store it once. The queue is bounded: the oldest is dropped and counted.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import random
import threading
import uuid
from collections import deque
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import numpy as np

from hedgerow.backoff import Backoff
from hedgerow.contracts.names import ENV_TELEMETRY_TOKEN, ENV_TELEMETRY_URL, HEADER_IDEMPOTENCY
from hedgerow.errors import InvalidSetting
from runtime.exchange import Work

_log = logging.getLogger("hedgerow.runtime.observing")

QUEUE_LENGTH = 1000
LAST_OUTPUT_BYTES = 1024
_LATENCIES_KEPT = 4096
_FIRST_VALUES = 16
_JSON_PARSED = 4096
_POST_TIMEOUT_S = 5.0


class JsonText(bytes):
    """An answer that is JSON already; looked into only when a message is made, and only when it is short."""

    __slots__ = ()


class Recorder(Protocol):
    """Told of every scoring, on the request's own thread: must be quick. ``output`` may be a call that gives it."""

    def scored(self, work: Work, output: object) -> None: ...

    def failed(self) -> None: ...


class NoTelemetry:
    """Where nobody asked for telemetry."""

    def scored(self, work: Work, output: object) -> None:
        pass

    def failed(self) -> None:
        pass


class Tally:
    """What was scored since the last message."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._requests = self._rows = self._errors = 0
        self._latencies: list[float] = []
        self._longest = 0.0
        self._output: object = None

    def scored(self, work: Work, output: object) -> None:
        latency_ms = (work.queued_s + work.ran_s) * 1000
        with self._lock:
            self._requests += 1
            self._rows += work.rows
            self._longest = max(self._longest, latency_ms)
            # Beyond this the median of the second is known well enough.
            if len(self._latencies) < _LATENCIES_KEPT:
                self._latencies.append(latency_ms)
            self._output = output

    def failed(self) -> None:
        with self._lock:
            self._requests += 1
            self._errors += 1

    def take(self) -> bytes | None:
        """The message since the last call; None when nothing was asked."""
        with self._lock:
            if not self._requests:
                return None
            counts = {"requests": self._requests, "rows": self._rows, "errors": self._errors}
            latencies, longest, output = sorted(self._latencies), self._longest, self._output
            self._clear()
        middle = latencies[len(latencies) // 2] if latencies else None
        latency = {"p50": middle and round(middle, 3), "max": round(longest, 3) if latencies else None}
        message = {**counts, "latency_ms": latency, "last_output": last_output(output)}
        return json.dumps(message, allow_nan=False).encode()


def last_output(output: object) -> object:
    """The first value(s) of an answer as JSON of at most about 1 kB; NaN and infinities become null."""
    shown = _first_values(output, 3)
    text = json.dumps(shown)
    return shown if len(text) <= LAST_OUTPUT_BYTES else text[: LAST_OUTPUT_BYTES - 3] + "..."


def _first_values(value: object, depth: int) -> object:
    if callable(value):
        return _first_values(value(), depth)
    if isinstance(value, JsonText):
        text = value[:LAST_OUTPUT_BYTES].decode("utf-8", "replace")
        return _first_values(json.loads(value) if len(value) <= _JSON_PARSED else text, depth)
    if isinstance(value, np.ndarray):
        # The first row only, flattened: an image as output must not be converted whole.
        row = value[0] if value.ndim and len(value) else value
        return _first_values(np.asarray(row).reshape(-1)[:_FIRST_VALUES].tolist(), depth)
    if isinstance(value, dict) and depth:
        return {str(key): _first_values(inner, depth - 1) for key, inner in islice(value.items(), _FIRST_VALUES)}
    if isinstance(value, list | tuple) and depth:
        return [_first_values(inner, depth - 1) for inner in value[:_FIRST_VALUES]]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | int | None):
        return value
    if isinstance(value, np.generic):
        return _first_values(value.item(), depth)
    return str(value)[:LAST_OUTPUT_BYTES]


class Counters(Protocol):
    """Where the sender counts (runtime.observing.metrics.Board)."""

    def add(self, name: str, amount: float = 1.0) -> None: ...


@dataclass(frozen=True)
class Receiver:
    """Where messages go."""

    url: SplitResult
    token: str | None

    @classmethod
    def parse(cls, url: str, token: str | None) -> Receiver:
        """Raises InvalidSetting for anything but http(s)://host…, and for a token that no header can carry."""
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            usable = False
        if not usable:
            problem = "it must be http://HOST… or https://HOST…"
            raise InvalidSetting(name="telemetry_url", value=url, problem=problem, source=ENV_TELEMETRY_URL)
        if token is not None and not (token.isascii() and token.isprintable()):
            problem = "it has characters that a header cannot carry"
            raise InvalidSetting(name="telemetry_token", value="***", problem=problem, source=ENV_TELEMETRY_TOKEN)
        return cls(parts, token)


class Telemetry:
    """A Tally with a thread that sends it once a second. One per worker, started after the fork."""

    def __init__(
        self, receiver: Receiver, counters: Counters, *, period_s: float = 1.0, queue_length: int = QUEUE_LENGTH
    ) -> None:
        self._receiver, self._counters = receiver, counters
        self._period_s, self._queue_length = period_s, queue_length
        self._tally = Tally()
        self._queue: deque[tuple[str, bytes]] = deque()
        self._backoff = Backoff(first_s=0.5, cap_s=30.0)
        self._failures = 0
        self._retry_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self.scored, self.failed = self._tally.scored, self._tally.failed

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Send what is left, once, and end."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self._collect()
            if monotonic() >= self._retry_at:
                self._send_queued()
        self._collect()
        self._send_queued()

    def _collect(self) -> None:
        message = self._tally.take()
        if message is None:
            return
        if len(self._queue) >= self._queue_length:
            self._queue.popleft()
            self._counters.add("hedgerow_telemetry_dropped_total")
        self._queue.append((str(uuid.uuid4()), message))

    def _send_queued(self) -> None:
        while self._queue:
            key, message = self._queue[0]
            problem = self._post(key, message)
            if problem:
                self._failed(problem)
                return
            self._queue.popleft()
            self._failures = 0
            self._counters.add("hedgerow_telemetry_sent_total")

    def _failed(self, problem: str) -> None:
        self._failures += 1
        self._retry_at = monotonic() + self._backoff.delay_s(self._failures, random.random)
        self._counters.add("hedgerow_telemetry_failed_total")
        # Said once per outage: a device without its hub for a week must not fill its log.
        if self._failures == 1:
            _log.warning("telemetry could not be sent (%s); trying again, up to %d messages wait", problem, self._queue_length)

    def _post(self, key: str, message: bytes) -> str:
        """Empty when stored, else what went wrong."""
        url = self._receiver.url
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        headers = {"content-type": "application/json", HEADER_IDEMPOTENCY: key}
        if self._receiver.token:
            headers["authorization"] = f"Bearer {self._receiver.token}"
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection = kind(url.hostname or "", url.port, timeout=_POST_TIMEOUT_S)
        try:
            connection.request("POST", target, body=message, headers=headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as problem:
            return str(problem) or type(problem).__name__
        finally:
            connection.close()
        return "" if 200 <= status < 300 else f"status {status}"
