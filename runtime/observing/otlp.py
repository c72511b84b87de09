"""Traced requests to an OpenTelemetry receiver, as OTLP over HTTP. With otlp_session.py all that needs the extra ``[otel]``.

POST /score            from the first byte to the answer
  receive              until the request was whole
  queue                from then until its turn
  read                 of a large body, on the model's thread
  run                  in the model or the script
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hedgerow.errors import InvalidSetting
from runtime.errors import TracingNotInstalled
from runtime.observing import otlp_wire
from runtime.observing.tracing import TracedRequest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_log = logging.getLogger("hedgerow.runtime.observing")

_TIMEOUT_S = 5.0
_TRACES_PATH = "/v1/traces"
_NS = 1_000_000_000
_IDS = 2**64 - 1


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

            from runtime.observing.otlp_session import InPlaceSession
        except ImportError as problem:
            raise TracingNotInstalled(problem=problem) from None
        # What it says of each failure is said here once per outage.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._session = InPlaceSession()
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=_TIMEOUT_S, session=self._session)
        self._stand_in = _stand_in(service, version)
        self._resource, self._scope = _encoded(self._stand_in)
        self._told = told
        self._failing = False

    def take(self, requests: list[TracedRequest], epoch_s: float) -> None:
        """Send them. ``epoch_s`` added to a time of theirs is Unix time."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans = [span for request in requests for span in spans_of(request, epoch_s)]
        self._session.body = otlp_wire.export_request(self._resource, self._scope, spans)
        if self._exporter.export([self._stand_in]) is SpanExportResult.SUCCESS:
            self._told(len(requests), 0)
            self._failing = False
            return
        self._told(0, len(requests))
        if not self._failing:
            _log.warning("traces could not be sent; they are dropped until the receiver takes them again")
        self._failing = True


def _stand_in(service: str, version: str) -> ReadableSpan:
    """A span with the resource and scope of all."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext

    # OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME of the environment count more, as everywhere.
    given = Resource.create()
    unnamed = str(given.attributes.get("service.name", "unknown_service")).startswith("unknown_service")
    resource = given.merge(Resource({"service.name": service})) if unnamed else given
    scope = InstrumentationScope("hedgerow.runtime", version)
    return ReadableSpan("", SpanContext(1, 1, is_remote=False), resource=resource, instrumentation_scope=scope)


def _encoded(span: ReadableSpan) -> tuple[bytes, bytes]:
    """Its resource and its scope, as their encoder says them."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    (of_resource,) = encode_spans([span]).resource_spans
    return of_resource.resource.SerializeToString(), of_resource.scope_spans[0].scope.SerializeToString()


def spans_of(request: TracedRequest, epoch_s: float) -> Iterator[bytes]:
    """A request's own span and those of its steps, encoded."""
    trace = request.trace
    trace_id, span_id = bytes.fromhex(trace.trace_id), bytes.fromhex(trace.span_id)
    receiving_since = min(trace.receiving_since, request.received_at)
    yield otlp_wire.span(
        trace_id,
        span_id,
        bytes.fromhex(trace.parent_id),
        _name(request),
        _times_ns(receiving_since, request.answered_at, epoch_s),
        state=trace.state,
        attributes=b"".join([otlp_wire.attribute(key, value) for key, value in _attributes(request).items()]),
        server=True,
        failed=request.status >= 500,
    )
    own = int.from_bytes(span_id)
    for number, (name, begun, ended) in enumerate(_steps(request), start=1):
        # Ids within one span need only differ from each other's and from all others': ours plus the step, but for zero.
        step_id = ((own - 1 + number) % _IDS + 1).to_bytes(8)
        yield otlp_wire.span(trace_id, step_id, span_id, name, _times_ns(begun, ended, epoch_s), state=trace.state)


def _times_ns(begun: float, ended: float, epoch_s: float) -> tuple[int, int]:
    begun_ns, ended_ns = round((epoch_s + begun) * _NS), round((epoch_s + ended) * _NS)
    return begun_ns, max(begun_ns, ended_ns)


def _name(request: TracedRequest) -> str:
    """Without what differs from model to model."""
    if request.grpc_status is not None:
        return request.path[1:]
    return f"{request.method} {request.path if request.name == 'score' else '/v2/models/{model}/infer'}"


def _attributes(request: TracedRequest) -> dict[str, str | int]:
    """Names of OpenTelemetry's semantic conventions where there is one."""
    found: dict[str, str | int]
    if request.grpc_status is None:
        found = {
            "http.request.method": request.method,
            "url.path": request.path,
            "http.response.status_code": request.status,
        }
    else:
        service, method = request.path[1:].split("/")
        found = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "rpc.grpc.status_code": request.grpc_status,
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
