"""Traced requests to an OpenTelemetry receiver, as OTLP over HTTP. The only file that imports opentelemetry (extra ``[otel]``).

POST /score            from the first byte to the answer
  receive              until the request was whole
  queue                from then until its turn
  read                 of a large body, on the model's thread
  run                  in the model or the script
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hedgerow.errors import InvalidSetting
from runtime.errors import TracingNotInstalled
from runtime.observing.tracing import TracedRequest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_log = logging.getLogger("hedgerow.runtime.traces")

_TIMEOUT_S = 5.0
_TRACES_PATH = "/v1/traces"
_NS = 1_000_000_000


def traces_url(endpoint: str) -> str:
    """Where spans are posted to. Raises InvalidSetting for anything but http(s)://HOST…"""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problem = "it must be http://HOST… or https://HOST…"
        raise InvalidSetting(name="otlp_endpoint", value=endpoint, problem=problem, source="--otlp-endpoint")
    return endpoint if parts.path.endswith(_TRACES_PATH) else endpoint.rstrip("/") + _TRACES_PATH


class OtlpReceiver:
    """Sends spans; its methods belong to one thread. ``told(exported, dropped)`` counts requests.

    Raises TracingNotInstalled without the extra.
    """

    def __init__(self, url: str, service: str, version: str, told: Callable[[int, int], None]) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError as problem:
            raise TracingNotInstalled(problem=problem) from None
        # What it says of each failure is said here once per outage.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=_TIMEOUT_S)
        # OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME of the environment count more, as everywhere.
        given = Resource.create()
        unnamed = str(given.attributes.get("service.name", "unknown_service")).startswith("unknown_service")
        self._resource = given.merge(Resource({"service.name": service})) if unnamed else given
        self._scope = InstrumentationScope("hedgerow.runtime", version)
        self._told = told
        self._failing = False

    def take(self, requests: list[TracedRequest], epoch_s: float) -> None:
        """Send them. ``epoch_s`` added to a time of theirs is Unix time."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans = [span for request in requests for span in self._spans(request, epoch_s)]
        if self._exporter.export(spans) is SpanExportResult.SUCCESS:
            self._told(len(requests), 0)
            self._failing = False
            return
        self._told(0, len(requests))
        if not self._failing:
            _log.warning("traces could not be sent; they are dropped until the receiver takes them again")
        self._failing = True

    def _spans(self, request: TracedRequest, epoch_s: float) -> Iterator[ReadableSpan]:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        trace = request.trace
        own = self._context(trace.trace_id, trace.span_id, trace.state)
        parent = self._context(trace.trace_id, trace.parent_id, trace.state, remote=True) if trace.parent_id else None
        failed = request.status >= 500
        yield self._span(
            f"{request.method} {request.path if request.name == 'score' else '/v2/models/{model}/infer'}",
            own,
            parent,
            (min(trace.receiving_since, request.received_at), request.answered_at),
            epoch_s,
            _attributes(request),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR) if failed else Status(StatusCode.UNSET),
        )
        for number, (name, begun, ended) in enumerate(_steps(request), start=1):
            # Ids within one span need only differ from each other's and from all others': ours plus the step.
            span_id = f"{(int(trace.span_id, 16) + number) % 2**64 or 1:016x}"
            child = self._context(trace.trace_id, span_id, trace.state)
            yield self._span(name, child, own, (begun, ended), epoch_s, {}, kind=SpanKind.INTERNAL, status=Status())

    def _context(self, trace_id: str, span_id: str, state: str, *, remote: bool = False) -> Any:  # noqa: ANN401 - imported late
        from opentelemetry.trace import SpanContext, TraceFlags, TraceState

        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(int(trace_id, 16), int(span_id, 16), remote, flags, TraceState.from_header([state]) if state else None)

    def _span(
        self,
        name: str,
        context: Any,  # noqa: ANN401 - imported late
        parent: Any,  # noqa: ANN401 - imported late
        times: tuple[float, float],
        epoch_s: float,
        attributes: dict[str, str | int],
        **more: Any,  # noqa: ANN401 - imported late
    ) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan

        begun, ended = (round((epoch_s + moment) * _NS) for moment in times)
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            start_time=begun,
            end_time=max(begun, ended),
            instrumentation_scope=self._scope,
            **more,
        )


def _attributes(request: TracedRequest) -> dict[str, str | int]:
    """Names of OpenTelemetry's semantic conventions where there is one."""
    found: dict[str, str | int] = {
        "http.request.method": request.method,
        "url.path": request.path,
        "http.response.status_code": request.status,
    }
    if request.model is not None:
        found["hedgerow.model.name"], found["hedgerow.model.version"] = request.model
    if request.rows:
        found["hedgerow.rows"], found["hedgerow.batch.requests"] = request.rows, request.merged
    return found


def _steps(request: TracedRequest) -> Iterator[tuple[str, float, float]]:
    receiving_since = min(request.trace.receiving_since, request.received_at)
    yield "receive", receiving_since, request.received_at
    if request.asked_at is None or not request.started_at:
        return
    read_at = request.started_at - request.read_s
    yield "queue", min(request.asked_at, read_at), read_at
    if request.read_s:
        yield "read", read_at, request.started_at
    if request.finished_at:
        yield "run", request.started_at, request.finished_at
