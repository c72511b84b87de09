"""Twins over HTTP, for modules without MQTT: the local port answers ``/twin/…`` from here.

``PATCH`` (or ``POST``) ``/twin/reported`` merges a patch into what the module reports, ``PUT`` replaces all of it; answered
with ``{"version": N}`` once it is on the disk. ``GET /twin/reported`` gives it back. ``GET /twin/desired`` gives what is
desired with its ``$version``; with ``?version=N&wait_s=20`` when it is another version than N, or when the time is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

import msgspec

from edge_agent.errors import MessageRefused, NoSuchPath
from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.http_requests import Answer
from edge_agent.twins.desired import VERSION
from edge_agent.twins.reported import ReportedTwins

PREFIX = "/twin/"
WAIT_MAX_S = 50.0
# Those that wait must leave room for those that bring telemetry.
WAITING_MAX, WAITING_PER_MODULE = 8, 2


class TwinsHttp:
    """Thread-safe. ``desired`` gives a module's desired properties with their version."""

    def __init__(self, reported: ReportedTwins, desired: Callable[[str], Mapping[str, object]], metrics: Metrics) -> None:
        self._reported = reported
        self._desired = desired
        self._metrics = metrics
        self._changed = threading.Condition()
        self._changes = 0
        self._waiting: list[str] = []
        self._closed = False

    @property
    def waiting(self) -> int:
        """Polls that wait now."""
        with self._changed:
            return len(self._waiting)

    def changed(self) -> None:
        """Another desired state is in force."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Answer everybody who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], module: str, body: bytes) -> Answer:
        """The answer to a request of ``module``. Raises TwinRefused, TwinUnwritable, MessageRefused, NoSuchPath."""
        match method, path.removeprefix(PREFIX):
            case "GET", "desired":
                return _json(self._get(module, _number(query, "version"), _number(query, "wait_s")))
            case "GET", "reported":
                return self._tell(module)
            case "PATCH" | "POST" | "PUT", "reported":
                kept = self._reported.report(module, body, whole=method == "PUT").result()
                return _json({"version": kept.version})
        raise NoSuchPath(method=method, path=path)

    def _tell(self, module: str) -> Answer:
        found = self._reported.held().get(module)
        return _json({} if found is None else {**found.properties, VERSION: found.version})

    def _get(self, module: str, known: float | None, wait_s: float | None) -> Mapping[str, object]:
        began_s = time.monotonic()
        found = self._wait(module, known, wait_s)
        self._metrics.count("edgehub_gettwin_total", id=module)
        if not wait_s:  # waiting for a change is no slow answer
            self._metrics.observe("edgehub_gettwin_duration_seconds", time.monotonic() - began_s, id=module)
        return found

    def _wait(self, module: str, known: float | None, wait_s: float | None) -> Mapping[str, object]:
        """The desired properties, when they are not those of version ``known``, or after ``wait_s``."""
        with self._changed:
            before, found = self._changes, self._desired(module)
            crowded = len(self._waiting) >= WAITING_MAX or self._waiting.count(module) >= WAITING_PER_MODULE
            if known is None or not wait_s or found.get(VERSION, 0) != known or crowded:
                return found
            self._waiting.append(module)
            try:
                self._changed.wait_for(
                    lambda: self._closed or (self._changes != before and self._desired(module) != found),
                    max(0.0, min(wait_s, WAIT_MAX_S)),
                )
            finally:
                self._waiting.remove(module)
        return self._desired(module)


def _number(query: Mapping[str, list[str]], name: str) -> float | None:
    if name not in query:
        return None
    try:
        return msgspec.convert(query[name][0], float, strict=False)
    except msgspec.ValidationError as problem:
        raise MessageRefused(problem=f"its {name} is wrong: {problem}") from None


def _json(document: Mapping[str, object]) -> Answer:
    return Answer(HTTPStatus.OK, msgspec.json.encode(document))
