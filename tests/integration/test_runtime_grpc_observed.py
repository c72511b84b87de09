"""Calls over gRPC as logs, traces, collected data and statistics tell them: like requests of REST's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests import scoring_models as models
from tests.grpc_calls import address, filled, pair, raw_request, stream
from tests.integration.test_runtime_tracing import OtlpReceiver, attributes, receiver
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for

__all__ = ["receiver"]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
KEY = "k" * 32


def lines(server: ScoringServer) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in server.process.log_text().splitlines() if line.startswith('{"time"')]
    return [entry for entry in found if "duration_ms" in entry]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in folder.glob("requests-*.jsonl") for line in file.read_text().splitlines()]


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[ScoringServer]:
    with ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0", "--access-log", "json") as server:
        yield server


def test_every_call_is_a_line_of_the_access_log(echo: ScoringServer) -> None:
    with triton.InferenceServerClient(address(echo)) as client:
        client.infer("echo", [pair(1)], headers={"x-request-id": "r-1", "traceparent": TRACEPARENT})
        client.is_server_ready()
        with pytest.raises(InferenceServerException):
            client.infer("none", [pair(1)], headers={"x-request-id": "r-2"})
        with stream(client, headers={"x-request-id": "s-1"}) as answers:
            client.async_stream_infer("echo", [pair(2)])
            answers.get(timeout=20)
    wait_for(lambda: len(lines(echo)) == 4, what="four lines")
    scored, page, lost, streamed = lines(echo)
    assert (scored["method"], scored["path"], scored["route"], scored["status"]) == ("POST", INFER, "grpc", 200)
    assert (scored["request_id"], scored["trace_id"], scored["caller"]) == ("r-1", TRACE, "127.0.0.1")
    assert (scored["model"], scored["version"], scored["rows"], scored["batch"]) == ("echo", "1", 1, 1)
    assert 0 <= scored["queued_ms"] + scored["ran_ms"] <= scored["duration_ms"] + 0.01
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(b"\0" * 8)
    assert scored["bytes_in"] == len(request.SerializeToString())
    assert scored["bytes_out"] > 8
    assert (page["path"], page["status"], page.get("model")) == ("/inference.GRPCInferenceService/ServerReady", 200, None)
    assert (lost["status"], lost["request_id"], lost.get("model")) == (404, "r-2", None)
    assert (streamed["path"], streamed["request_id"], streamed["model"]) == (STREAM, "s-1", "echo")


def test_a_call_that_was_given_up_and_one_without_a_key_are_lines_too(tmp_path: Path) -> None:
    argv = ["--model", models.endless(), "--grpc-port", "0", "--access-log", "json", "--timeout-ms", "2000"]
    with (
        ScoringServer(tmp_path, *argv, env={"HEDGEROW_PRIMARY_KEY": KEY}) as server,
        triton.InferenceServerClient(address(server)) as client,
    ):
        for_ever = filled("rounds", np.array(10**12, np.int64), "INT64")
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            client.infer("endless", [for_ever])
        with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
            client.infer("endless", [for_ever], client_timeout=0.2, headers={"authorization": f"Bearer {KEY}"})
        wait_for(lambda: len(lines(server)) == 2, what="both lines")
        assert [(line["status"], line.get("model")) for line in lines(server)] == [(401, None), (499, "endless")]
        assert server.client.get(f"{server.url}/metrics").text.count('route="infer",status="401"} 1') == 1


def test_ids_come_back_as_metadata_also_when_the_call_fails(echo: ScoringServer) -> None:
    sent = (("x-request-id", "r-1"), ("traceparent", TRACEPARENT), ("tracestate", "vendor=7"))
    with grpc.insecure_channel(address(echo)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = raw_request("echo", "x", np.zeros((1, 2), np.float32), "FP32")
        _, call = stub.ModelInfer.with_call(request, metadata=sent)
        assert set(sent) <= set(call.initial_metadata())
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(service_pb2.ModelInferRequest(model_name="none"), metadata=sent)
        assert set(sent) <= set(refused.value.initial_metadata())
        _, silent = stub.ModelInfer.with_call(request)
        assert not {"x-request-id", "traceparent"} & {name for name, _ in silent.initial_metadata()}
        _, long = stub.ModelInfer.with_call(request, metadata=(("x-request-id", "x" * 200), ("traceparent", "nonsense")))
        assert not {"x-request-id", "traceparent"} & {name for name, _ in long.initial_metadata()}


def test_a_call_becomes_a_span_under_its_callers(tmp_path: Path, receiver: OtlpReceiver) -> None:
    with (
        ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0", "--otlp-endpoint", receiver.url) as server,
        grpc.insecure_channel(address(server)) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = raw_request("echo", "x", np.zeros((3, 2), np.float32), "FP32")
        _, call = stub.ModelInfer.with_call(request, metadata=(("traceparent", TRACEPARENT),))
        wait_for(lambda: len(receiver.by_name(TRACE)) == 4, what="the spans")
        own = receiver.by_name(TRACE)["inference.GRPCInferenceService/ModelInfer"]
        assert own.parent_span_id.hex() == PARENT
        assert dict(call.initial_metadata())["traceparent"] == f"00-{TRACE}-{own.span_id.hex()}-01"
        found = attributes(own)
        assert (found["rpc.system"], found["rpc.service"]) == ("grpc", "inference.GRPCInferenceService")
        assert (found["rpc.method"], found["rpc.grpc.status_code"]) == ("ModelInfer", 0)
        assert (found["hedgerow.model.name"], found["hedgerow.rows"]) == ("echo", 3)
        other = "ab" * 16
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(
                service_pb2.ModelInferRequest(model_name="none"), metadata=(("traceparent", f"00-{other}-{PARENT}-01"),)
            )
        wait_for(lambda: receiver.by_name(other), what="the refused call's span")
        refused = receiver.by_name(other)["inference.GRPCInferenceService/ModelInfer"]
        assert attributes(refused)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]


def test_messages_of_a_stream_are_spans_of_their_own(tmp_path: Path, receiver: OtlpReceiver) -> None:
    with (
        ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0", "--otlp-endpoint", receiver.url) as server,
        triton.InferenceServerClient(address(server)) as client,
        stream(client, headers={"traceparent": TRACEPARENT}) as answers,
    ):
        for number in range(3):
            client.async_stream_infer("echo", [pair(number)])
        assert [answers.get(timeout=20)[1] for _ in range(3)] == [None] * 3

        def own() -> list[str]:
            return [span.span_id.hex() for span in receiver.spans() if span.name.endswith("ModelStreamInfer")]

        wait_for(lambda: len(set(own())) == 3, what="three spans")


def test_collected_calls_are_values_with_their_ids(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    argv = ["--model", models.echo(), "--grpc-port", "0", "--collect", "--collect-dir", folder]
    with (
        ScoringServer(tmp_path, *argv) as server,
        triton.InferenceServerClient(address(server)) as client,
        grpc.insecure_channel(address(server)) as channel,
    ):
        client.infer("echo", [pair(1.5)], request_id="7", headers={"x-request-id": "r-1", "traceparent": TRACEPARENT})
        with pytest.raises(InferenceServerException):
            client.infer("none", [pair(1)])
        client.get_server_metadata()
        with stream(client) as answers:
            client.async_stream_infer("echo", [pair(2.5)])
            answers.get(timeout=20)
        typed = service_pb2.ModelInferRequest(model_name="echo")
        typed.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([3.5, 4])
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(typed)
        wait_for(lambda: len(records(folder)) == 3, what="what was scored")
        wait_for(lambda: server.metric("hedgerow_collected_records_total") == 3, what="its count")
    first, streamed, in_kind = records(folder)
    assert (first["Request Id"], first["Trace Id"], first["Route"], first["Status"]) == ("r-1", TRACE, "grpc", 200)
    assert first["Models"] == ["echo:1"]
    assert first["Input"] == {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -1.5]}]}
    answer = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -1.5]}
    assert first["Prediction"] == {"model_name": "echo", "model_version": "1", "id": "7", "outputs": [answer]}
    assert streamed["Prediction"]["outputs"][0]["data"] == [2.5, -2.5]
    assert (in_kind["Input"]["inputs"][0]["data"], in_kind["Prediction"]["outputs"][0]["data"]) == ([3.5, 4], [3.5, 4])


def test_texts_and_what_is_no_tensor_are_collected_too(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    argv = ["--model", models.echo_text(), "--grpc-port", "0", "--collect", "--collect-dir", folder]
    with ScoringServer(tmp_path, *argv) as server, triton.InferenceServerClient(address(server)) as client:
        client.infer("echo-text", [filled("x", np.array(["é".encode()], np.object_), "BYTES")])
        # Larger ones are read where the model runs: what is wrong with them shows only there.
        cut = triton.InferInput("x", [1], "BYTES")
        cut.set_data_from_numpy(np.array([b"x" * 50_000], np.object_))
        cut._raw_content = cut._raw_content[:-1]
        with pytest.raises(InferenceServerException, match="lengths and UTF-8"):
            client.infer("echo-text", [cut])
        wait_for(lambda: len(records(folder)) == 2, what="both records")
    good, bad = records(folder)
    assert (good["Input"]["inputs"][0]["data"], good["Prediction"]["outputs"][0]["data"]) == (["é"], ["é"])
    assert bad["Status"] == 400
    assert "UTF-8" in bad["Prediction"]["error"]


def test_runs_are_told_by_their_size_over_both_protocols(echo: ScoringServer) -> None:
    with triton.InferenceServerClient(address(echo)) as client:
        for rows, times in ((1, 3), (2, 1), (100, 2)):
            for _ in range(times):
                client.infer("echo", [filled("x", np.zeros((rows, 2), np.float32), "FP32")])
        stats = client.get_inference_statistics("echo").model_stats[0]
    # Beyond 64 rows a size stands for all down to the next smaller power of two.
    assert [(one.batch_size, one.compute_infer.count) for one in stats.batch_stats] == [(1, 3), (2, 1), (128, 2)]
    assert sum(one.compute_infer.count for one in stats.batch_stats) == stats.execution_count == 6
    for part in ("compute_input", "compute_infer", "compute_output"):
        by_size = sum(getattr(one, part).ns for one in stats.batch_stats)
        # Every request had a run of its own here.
        assert by_size == pytest.approx(getattr(stats.inference_stats, part).ns, abs=6000)
        assert by_size > 0
    with triton_http.InferenceServerClient(echo.url.removeprefix("http://")) as client:
        told = client.get_inference_statistics("echo")["model_stats"][0]["batch_stats"]
    assert [(one["batch_size"], one["compute_infer"]["ns"]) for one in told] == [
        (one.batch_size, one.compute_infer.ns) for one in stats.batch_stats
    ]
