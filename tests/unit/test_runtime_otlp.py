"""Spans as bytes: the official decoder and the official encoder agree with what is written by hand."""

from __future__ import annotations

from time import process_time

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from runtime.observing import otlp_wire
from runtime.observing.otlp import spans_of
from runtime.observing.tracing import Trace, TracedRequest

_IDS = st.binary(min_size=8, max_size=8).filter(any)
_TIMES = st.tuples(st.integers(0, 2**63), st.integers(0, 2**63))
_NUMBERS = st.integers(0, 2**63 - 1)


def official(
    trace_id: bytes,
    span_id: bytes,
    parent_id: bytes,
    name: str,
    times_ns: tuple[int, int],
    attributes: dict[str, str | int],
    *,
    server: bool,
    failed: bool,
) -> Span:
    def context(own: bytes, *, remote: bool = False) -> SpanContext:
        state = TraceState([("vendor", "7")])
        return SpanContext(int.from_bytes(trace_id), int.from_bytes(own), remote, TraceFlags(TraceFlags.SAMPLED), state)

    span = ReadableSpan(
        name,
        context(span_id),
        context(parent_id, remote=server) if parent_id else None,
        attributes=attributes,
        kind=SpanKind.SERVER if server else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        start_time=times_ns[0],
        end_time=times_ns[1],
    )
    (resource,) = encode_spans([span]).resource_spans
    found: Span = resource.scope_spans[0].spans[0]
    if not failed:
        # An empty message means the same as none.
        found.ClearField("status")
    return found


def decoded(spans: list[bytes]) -> list[Span]:
    resource, scope = Resource(dropped_attributes_count=3), InstrumentationScope(name="n", version="1")
    message = otlp_wire.export_request(resource.SerializeToString(), scope.SerializeToString(), spans)
    (found,) = ExportTraceServiceRequest.FromString(message).resource_spans
    assert found.resource == resource
    (of_scope,) = found.scope_spans
    assert of_scope.scope == scope
    return list(of_scope.spans)


@given(
    trace=_IDS,
    own=_IDS,
    parent=st.one_of(st.just(b""), _IDS),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    times=_TIMES,
    attributes=st.dictionaries(
        st.text("abc.é", min_size=1),
        st.one_of(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200), _NUMBERS.filter(bool)),
        max_size=5,
    ),
    server=st.booleans(),
    failed=st.booleans(),
)
def test_a_span_is_what_the_official_encoder_says(
    trace: bytes,
    own: bytes,
    parent: bytes,
    name: str,
    times: tuple[int, int],
    attributes: dict[str, str | int],
    server: bool,
    failed: bool,
) -> None:
    text = b"".join([otlp_wire.attribute(key, value) for key, value in attributes.items()])
    ours = otlp_wire.span(trace * 2, own, parent, name, times, state="vendor=7", attributes=text, server=server, failed=failed)
    (found,) = decoded([ours])
    assert found == official(trace * 2, own, parent, name, times, attributes, server=server, failed=failed)


@given(value=_NUMBERS)
def test_whole_numbers_of_every_size(value: int) -> None:
    (found,) = decoded([otlp_wire.span(b"t" * 16, b"s" * 8, b"", "n", (1, 2), attributes=otlp_wire.attribute("k", value))])
    assert found.attributes[0].value.int_value == value


def traced(path: str = "/score", state: str = "") -> TracedRequest:
    trace = Trace("ab" * 16, "ff" * 8, "cd" * 8, state, 1.0)
    return TracedRequest(
        trace=trace,
        name="score",
        method="POST",
        path=path,
        status=200,
        model=("iris", "1"),
        received_at=1.1,
        answered_at=1.9,
        asked_at=1.2,
        started_at=1.4,
        finished_at=1.8,
        read_s=0.1,
        rows=2,
        merged=1,
    )


def test_a_request_and_its_steps() -> None:
    own, *steps = decoded(list(spans_of(traced(), 1e9)))
    assert (own.name, own.start_time_unix_nano, own.end_time_unix_nano) == (
        "POST /score",
        1_000_000_001 * 10**9,
        1000000001.9 * 1e9,
    )
    assert [step.name for step in steps] == ["receive", "queue", "read", "run"]
    assert {step.parent_span_id for step in steps} == {own.span_id}
    ids = [span.span_id for span in (own, *steps)]
    assert len(set(ids)) == 5, "also where counting on from the span's own id overflows"
    assert b"\0" * 8 not in ids


def test_texts_that_are_no_unicode_cost_nobody_elses_spans() -> None:
    own, *_ = decoded(list(spans_of(traced("/\udcff", "a=\udcff"), 1e9)))
    assert own.name == "POST /?"


def test_a_span_costs_a_fraction_of_what_the_official_encoder_takes() -> None:
    request = traced()
    began = process_time()
    for _ in range(500):
        list(spans_of(request, 1e9))
    ours = process_time() - began
    began = process_time()
    for _ in range(500):
        official(b"t" * 16, b"s" * 8, b"p" * 8, "n", (1, 2), {"a": "b", "c": 1}, server=True, failed=False)
    # They made one span, we five.
    assert ours < (process_time() - began) / 2
