"""Spans out of a real server into a real OTLP receiver over HTTP, and what happens when it is not there."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests import scoring_models as models
from tests.post_receiver import receiving
from tests.scoring_server import ScoringServer, script
from tests.waiting import wait_for

ROW = [5.1, 3.5, 1.4, 0.2]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class OtlpReceiver:
    """Takes what is posted to /v1/traces."""

    status: int = 200
    posts: list[ExportTraceServiceRequest] = field(default_factory=list)
    packings: set[str | None] = field(default_factory=set)
    url: str = ""

    def spans(self) -> list[Span]:
        return [span for post in self.posts for one in post.resource_spans for scope in one.scope_spans for span in scope.spans]

    def by_name(self, trace: str) -> dict[str, Span]:
        return {span.name: span for span in self.spans() if span.trace_id.hex() == trace}


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    found = OtlpReceiver()

    def take(path: str, headers: Message, body: bytes) -> int:
        assert path == "/v1/traces"
        assert headers["content-type"] == "application/x-protobuf"
        found.packings.add(headers["content-encoding"])
        unpack: dict[str | None, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
        text = unpack.get(headers["content-encoding"], bytes)(body)
        if found.status == 200:
            found.posts.append(ExportTraceServiceRequest.FromString(text))
        return found.status

    with receiving(take) as found.url:
        yield found


def attributes(span: Span) -> dict[str, object]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_request_becomes_a_span_with_its_steps_under_the_callers(tmp_path: Path, receiver: OtlpReceiver) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--otlp-endpoint", receiver.url) as server:
        sent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=7"}
        answer = server.score([ROW, ROW], headers=sent)
        wait_for(lambda: len(receiver.by_name(TRACE)) == 4, what="the spans")
        spans = receiver.by_name(TRACE)
        wait_for(lambda: server.metric("hedgerow_spans_exported_total") == 1, what="the count")
    own = spans["POST /score"]
    assert own.parent_span_id.hex() == PARENT
    assert own.trace_state == "vendor=7"
    assert own.kind == Span.SPAN_KIND_SERVER
    assert answer.headers["traceparent"] == f"00-{TRACE}-{own.span_id.hex()}-01"
    assert answer.headers["tracestate"] == "vendor=7"
    steps = [spans[name] for name in ("receive", "queue", "run")]
    assert {step.parent_span_id for step in steps} == {own.span_id}
    assert len({span.span_id for span in spans.values()}) == 4
    # Milliseconds is what the event loop's own clock gives for the first byte.
    slack_ns = 2_000_000
    moments = [
        own.start_time_unix_nano,
        *(moment for step in steps for moment in (step.start_time_unix_nano, step.end_time_unix_nano)),
    ]
    assert all(later - earlier > -slack_ns for earlier, later in itertools.pairwise(moments))
    assert steps[-1].end_time_unix_nano <= own.end_time_unix_nano
    found = attributes(own)
    assert (found["http.request.method"], found["url.path"], found["http.response.status_code"]) == ("POST", "/score", 200)
    assert (found["hedgerow.model.name"], found["hedgerow.model.version"], found["hedgerow.rows"]) == ("iris", "1", 2)
    resource = {one.key: one.value.string_value for one in receiver.posts[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "iris"


def test_a_script_gets_our_span_as_its_parent_and_failures_are_marked(tmp_path: Path, receiver: OtlpReceiver) -> None:
    body = """
        def init(): pass
        def run(data, request_headers):
            if data == "fail": raise ValueError
            return request_headers["Traceparent"]
        """
    with ScoringServer(tmp_path, "--script", script(tmp_path, body), "--otlp-endpoint", receiver.url) as server:
        answer = server.post("/score", "x")
        inside = answer.json()
        assert inside == answer.headers["traceparent"]
        trace = inside.split("-")[1]
        wait_for(lambda: len(receiver.by_name(trace)) == 4, what="the spans")
        own = receiver.by_name(trace)["POST /score"]
        assert own.span_id.hex() == inside.split("-")[2]
        assert not own.parent_span_id, "the trace begins here"
        failed = server.post("/score", "fail").headers["traceparent"].split("-")[1]
        wait_for(lambda: receiver.by_name(failed), what="the failed request's spans")
        assert receiver.by_name(failed)["POST /score"].status.code == Status.STATUS_CODE_ERROR


def test_the_caller_decides_whether_a_request_is_traced_otherwise_chance_does(tmp_path: Path, receiver: OtlpReceiver) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--otlp-endpoint", receiver.url, "--trace-sample", "0") as server:
        unsampled = server.score([ROW], headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        assert unsampled.headers["traceparent"].endswith("-00")
        assert server.score([ROW]).headers["traceparent"].endswith("-00"), "by chance of nought"
        server.score([ROW], headers={"traceparent": f"00-{'ab' * 16}-{PARENT}-01"})
        wait_for(lambda: receiver.by_name("ab" * 16), what="the sampled one")
        assert {span.trace_id.hex() for span in receiver.spans()} == {"ab" * 16}


def test_large_bodies_tell_how_long_they_were_read(tmp_path: Path, receiver: OtlpReceiver) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--otlp-endpoint", receiver.url) as server:
        assert server.score([ROW] * 5000, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}).status_code == 200
        wait_for(lambda: "read" in receiver.by_name(TRACE), what="the step of reading")


def test_a_receiver_that_is_not_there_costs_no_request_and_is_said_once(tmp_path: Path, receiver: OtlpReceiver) -> None:
    receiver.status = 400
    with ScoringServer(tmp_path, "--model", models.iris(), "--otlp-endpoint", receiver.url) as server:
        for _ in range(3):
            assert server.score([ROW]).elapsed.total_seconds() < 0.5
            dropped = server.metric("hedgerow_spans_dropped_total")
            wait_for(lambda dropped=dropped: server.metric("hedgerow_spans_dropped_total") > dropped, what="the count of dropped")  # type: ignore[misc]  # bound in the loop
        assert server.process.log_text().count("traces could not be sent") == 1
        receiver.status = 200
        server.score([ROW], headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        wait_for(lambda: receiver.by_name(TRACE), what="spans again")


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_what_opentelemetrys_variables_say_is_done(tmp_path: Path, receiver: OtlpReceiver, packing: str) -> None:
    said = {"OTEL_EXPORTER_OTLP_COMPRESSION": packing, "OTEL_RESOURCE_ATTRIBUTES": "region=north", "OTEL_SERVICE_NAME": "ours"}
    with ScoringServer(tmp_path, "--model", models.iris(), "--otlp-endpoint", receiver.url, env=said) as server:
        server.score([ROW], headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        wait_for(lambda: receiver.by_name(TRACE), what="the spans")
    assert receiver.packings == {packing}
    resource = {one.key: one.value.string_value for one in receiver.posts[0].resource_spans[0].resource.attributes}
    assert (resource["service.name"], resource["region"]) == ("ours", "north")
    assert len(receiver.spans()) == 4, "and none that stands in for them"


def test_the_last_spans_are_sent_when_the_server_stops(tmp_path: Path, receiver: OtlpReceiver) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--otlp-endpoint", receiver.url) as server:
        server.score([ROW], headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        server.process.stop()
    assert "POST /score" in receiver.by_name(TRACE)


def test_nonsense_as_an_endpoint_is_refused(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--otlp-endpoint", "localhost:4317", wait=False) as server:
        wait_for(lambda: server.exit_code is not None, what="the end of it")
        assert "it must be http://HOST" in server.process.log_text()
