"""The Open Inference Protocol over gRPC: Triton's client unmodified, and typed contents as other clients send them."""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests import scoring_models as models
from tests.grpc_calls import address, filled, pair
from tests.integration.test_runtime_tls import make_pair
from tests.oip_models import every_type, put_models
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    root = put_models(
        tmp_path_factory.mktemp("grpc") / "repository",
        iris=models.iris(),
        text=models.echo_text(),
        types=every_type(),
        echo=models.echo(),
        endless=models.endless(),
    )
    arguments = ("--model-repository", root, "--model-control", "uploads", "--timeout-ms", "1500", "--max-body-bytes", "5000000")
    with ScoringServer(root.parent / "s", *arguments, "--grpc-port", "0") as running:
        yield running


@pytest.fixture
def client(server: ScoringServer) -> Iterator[Any]:
    with triton.InferenceServerClient(address(server)) as connected:
        yield connected


@pytest.fixture
def stub(server: ScoringServer) -> Iterator[Any]:
    with grpc.insecure_channel(address(server)) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def test_what_the_server_tells(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris", "1")
    metadata = client.get_server_metadata()
    assert (metadata.name, "model_repository" in metadata.extensions) == ("hedgerow", True)
    facts = client.get_model_metadata("iris", as_json=True)
    assert facts["inputs"] == [{"name": "X", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert (facts["versions"], facts["platform"]) == (["1"], "onnx_onnxv1")
    config = client.get_model_config("iris").config
    assert (config.backend, config.input[0].data_type, list(config.input[0].dims)) == ("onnxruntime", 11, [4])
    with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*no model 'none'"):
        client.is_model_ready("none")


def test_scoring_agrees_with_the_trained_model(client: Any) -> None:
    rows = models.iris_rows()[0]
    result = client.infer("iris", [filled("X", rows, "FP32")], request_id="42")
    np.testing.assert_allclose(result.as_numpy("probabilities"), models.iris_classifier().predict_proba(rows), atol=1e-4)
    assert (result.get_response().id, result.get_response().model_version) == ("42", "1")
    wanted = [triton.InferRequestedOutput("probabilities", class_count=1)]
    best = client.infer("iris", [filled("X", rows[:1], "FP32")], outputs=wanted).as_numpy("probabilities")
    assert best[0, 0].startswith(b"0.9")


def test_large_tensors_and_every_type(client: Any) -> None:
    large = np.arange(600_000, dtype=np.float32).reshape(-1, 2)
    for compression in (None, "gzip", "deflate"):
        result = client.infer("echo", [filled("x", large, "FP32")], compression_algorithm=compression)
        np.testing.assert_array_equal(result.as_numpy("y"), large)
    from tritonclient.utils import triton_to_np_dtype

    arrays = {name: np.array([0, 1], dtype=triton_to_np_dtype(name)) for name in models_types()}
    result = client.infer("types", [filled(name, array, name) for name, array in arrays.items()])
    for name, array in arrays.items():
        np.testing.assert_array_equal(result.as_numpy(f"out {name}"), array)
    texts = np.array(["é".encode(), b""], dtype=np.object_)
    assert client.infer("text", [filled("x", texts, "BYTES")]).as_numpy("y").tolist() == texts.tolist()


def models_types() -> list[str]:
    from tests.oip_models import DATATYPES

    return list(DATATYPES)


TYPED: dict[str, tuple[str, list[Any]]] = {
    "BOOL": ("bool_contents", [True, False]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65_535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(2**15), 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "FP32": ("fp32_contents", [-1.5, 0.25]),
    "FP64": ("fp64_contents", [1e300, -1e-300]),
}


def typed_request(**changed: tuple[str, list[Any]]) -> Any:
    request = service_pb2.ModelInferRequest(model_name="types", id="7")
    for name, (field, values) in {**TYPED, "FP16": ("fp32_contents", [0, 0]), **changed}.items():
        tensor = request.inputs.add(name=name, datatype=name, shape=[len(values)])
        getattr(tensor.contents, field).extend(values)
    return request


def test_typed_contents_are_answered_in_kind(stub: Any) -> None:
    request = service_pb2.ModelInferRequest(model_name="echo", id="7")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    answer = stub.ModelInfer(request)
    assert list(answer.outputs[0].contents.fp32_contents) == [1, 2, 3, 4]
    assert (answer.id, list(answer.outputs[0].shape), list(answer.raw_output_contents)) == ("7", [2, 2], [])
    texts = service_pb2.ModelInferRequest(model_name="text")
    texts.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append("é".encode())
    assert list(stub.ModelInfer(texts).outputs[0].contents.bytes_contents) == ["é".encode()]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "FP16 has no typed contents"),
        ({"UINT8": ("uint_contents", [0, 256])}, "out of range"),
        ({"INT8": ("int_contents", [-129, 0])}, "out of range"),
        ({"INT64": ("int_contents", [0, 0])}, "does not hold the 0 values of int64_contents"),
        ({"BYTES": ("bytes_contents", [b""])}, "no input named 'BYTES'"),
    ],
)
def test_typed_contents_that_do_not_fit(stub: Any, change: dict[str, tuple[str, list[Any]]], says: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(typed_request(**change))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in refused.value.details()


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (lambda r: setattr(r, "model_name", "none"), "NOT_FOUND", "no model 'none'"),
        (lambda r: setattr(r, "model_version", "9"), "NOT_FOUND", "no version '9'"),
        (lambda r: r.raw_input_contents.append(b""), "INVALID_ARGUMENT", "1 inputs and 2 raw_input_contents"),
        (lambda r: r.raw_input_contents.__setitem__(0, b"1234567"), "INVALID_ARGUMENT", "do not fill shape"),
        (lambda r: r.inputs[0].shape.__setitem__(0, -1), "INVALID_ARGUMENT", "do not fill shape"),
        (lambda r: r.inputs[0].contents.fp32_contents.append(1), "INVALID_ARGUMENT", "both contents and raw"),
        (lambda r: setattr(r.inputs[0], "datatype", "FP64"), "INVALID_ARGUMENT", "sent as FP64"),
        (lambda r: r.outputs.add(name="z"), "INVALID_ARGUMENT", "no output named 'z'"),
        (lambda r: r.outputs.add(name="y").parameters["classification"], "INVALID_ARGUMENT", "has no value"),
        (
            lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFromString(b"\x1a\x01r"),
            "INVALID_ARGUMENT",
            "Shared memory",
        ),
        (
            lambda r: r.inputs.clear() if hasattr(r.inputs, "clear") else r.ClearField("inputs"),
            "INVALID_ARGUMENT",
            "not provided",
        ),
    ],
)
def test_wrong_requests_are_refused_and_the_next_is_answered(stub: Any, spoil: Any, code: str, says: str) -> None:
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([1, 2], np.float32).tobytes())
    spoiled = service_pb2.ModelInferRequest()
    spoiled.CopyFrom(request)
    spoil(spoiled)
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(spoiled)
    assert (refused.value.code().name, says in refused.value.details()) == (code, True), refused.value.details()
    assert np.frombuffer(stub.ModelInfer(request).raw_output_contents[0], np.float32).tolist() == [1, 2]


def test_late_and_too_large(client: Any, server: ScoringServer) -> None:
    for_ever = filled("rounds", np.array(10**12, np.int64), "INT64")
    with pytest.raises(InferenceServerException, match=r"DEADLINE_EXCEEDED.*Scoring timeout after 1500 ms"):
        client.infer("endless", [for_ever])
    with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
        client.infer("echo", [filled("x", np.zeros((1_000_000, 2), np.float32), "FP32")])
    assert client.infer("echo", [pair(1)]).as_numpy("y").tolist() == [[1, -1]]
    assert server.metric('nv_inference_request_failure{model="endless",version="1",reason="CANCELED"}') == 1


def test_a_stream_keeps_its_order_and_survives_a_failure(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in (1, 2):
        client.async_stream_infer("echo", [pair(number)])
    client.async_stream_infer("none", [pair(3)])
    client.async_stream_infer("echo", [pair(4)])
    found = [answers.get(timeout=20) for _ in range(4)]
    client.stop_stream()
    assert [result and float(result.as_numpy("y")[0, 0]) for result, _ in found] == [1, 2, None, 4]
    assert "no model 'none'" in str(found[2][1])


def test_loading_unloading_and_statistics(client: Any, server: ScoringServer) -> None:
    index = {one.name: one.state for one in client.get_model_repository_index().models}
    assert index["echo"] == "READY"
    client.unload_model("text")
    assert server.get("/v2/models/text/ready").status_code == 404, "both faces serve the same models"
    client.load_model("text")
    client.load_model("sent", config="{}", files={"file:1/model.onnx": models.echo().read_bytes()})
    assert client.infer("sent", [pair(5)]).as_numpy("y").tolist() == [[5, -5]]
    assert client.infer("sent", [pair(6)]).as_numpy("y").tolist() == [[6, -6]]
    stats = client.get_inference_statistics("sent").model_stats[0]
    assert (stats.inference_count, stats.inference_stats.success.count) == (2, 2)
    assert stats.inference_stats.success.ns > stats.inference_stats.compute_infer.ns > 0
    client.unload_model("sent")
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        client.load_model("sent")


def test_the_asyncio_client_and_a_call_that_is_given_up(server: ScoringServer) -> None:
    async def many() -> list[float]:
        async with grpc.aio.insecure_channel(address(server)) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

            async def one(number: int) -> float:
                request = service_pb2.ModelInferRequest(model_name="echo")
                request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
                request.raw_input_contents.append(np.array([number, 0], np.float32).tobytes())
                answer = await stub.ModelInfer(request)
                return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])

            endless = service_pb2.ModelInferRequest(model_name="endless")
            endless.inputs.add(name="rounds", datatype="INT64", shape=[])
            endless.raw_input_contents.append(np.int64(10**12).tobytes())
            given_up = stub.ModelInfer(endless)
            found = await asyncio.gather(*(one(number) for number in range(50)))
            given_up.cancel()
            return found

    assert asyncio.run(many()) == list(range(50))
    wait_for(lambda: server.metric("hedgerow_in_flight") == 0, what="nothing left inside")


@pytest.mark.parametrize("ending", ["terminate", "reload"])
def test_calls_under_way_are_answered_when_the_worker_goes(tmp_path: Path, ending: str) -> None:
    with ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0") as server:
        ends: Counter[str] = Counter()
        stop = threading.Event()

        def score() -> None:
            with triton.InferenceServerClient(address(server)) as client:
                while not stop.is_set():
                    try:
                        found = client.infer("echo", [pair(3)]).as_numpy("y").tolist()
                        ends["ok" if found == [[3, -3]] else "wrong"] += 1
                    except InferenceServerException as problem:
                        ends[str(problem.status())] += 1
                        if ending == "terminate":
                            return

        threads = [threading.Thread(target=score) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: ends["ok"] > 50, what="answers")
        before = server.workers()
        if ending == "terminate":
            server.process.send(signal.SIGTERM)
            wait_for(lambda: not server.process.is_running, timeout_s=15, what="the server to end")
        else:
            server.process.send(signal.SIGHUP)
            wait_for(lambda: not set(before) & set(server.workers()), timeout_s=20, what="the new worker alone")
            count = ends["ok"]
            wait_for(lambda: ends["ok"] > count + 50, what="answers of the new worker")
        stop.set()
        for thread in threads:
            thread.join(20)
        # Once nobody listens any more, the next call says so: it was never taken.
        assert set(ends) <= {"ok", "StatusCode.UNAVAILABLE"}, ends
        assert ends["StatusCode.UNAVAILABLE"] == (3 if ending == "terminate" else 0), ends


def test_a_key_is_asked_for_here_too(tmp_path: Path) -> None:
    key = "k" * 32
    server = ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0", env={"HEDGEROW_PRIMARY_KEY": key})
    with server, triton.InferenceServerClient(address(server)) as client:
        assert client.is_server_live(), "health is open"
        calls: list[Callable[[], object]] = [
            lambda: client.infer("echo", [pair(1)]),
            lambda: client.get_server_metadata(),
            lambda: client.unload_model("echo"),
            lambda: client.infer("echo", [pair(1)], headers={"authorization": "Bearer " + "x" * 32}),
        ]
        for call in calls:
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                call()
        known = {"authorization": f"Bearer {key}"}
        assert client.infer("echo", [pair(1)], headers=known).as_numpy("y").tolist() == [[1, -1]]
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put(error))
        assert "key" in str(answers.get(timeout=20))
        client.stop_stream()


def test_the_servers_certificate_holds_here_too(tmp_path: Path) -> None:
    certificate, private_key = make_pair(tmp_path, "grpc")
    pair_of_files = ("--tls-cert", certificate, "--tls-key", private_key)
    with ScoringServer(tmp_path / "s", "--model", models.echo(), "--grpc-port", "0", *pair_of_files) as server:
        with triton.InferenceServerClient(address(server), ssl=True, root_certificates=str(certificate)) as client:
            assert client.infer("echo", [pair(2)]).as_numpy("y").tolist() == [[2, -2]]
        with triton.InferenceServerClient(address(server)) as plain, pytest.raises(InferenceServerException):
            plain.get_server_metadata(client_timeout=5)


def test_a_port_is_never_shared_by_accident(tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "first", "--model", models.echo(), "--grpc-port", "0") as server:
        port = address(server).rpartition(":")[2]
        second = ScoringServer(tmp_path / "second", "--model", models.echo(), "--grpc-port", port, wait=False)
        with second:
            wait_for(lambda: second.exit_code is not None, what="the second server's end")
            assert second.exit_code == 3
            assert f"Cannot listen on 127.0.0.1:{port}" in second.process.log_text()
        with triton.InferenceServerClient(address(server)) as client:
            assert client.is_server_ready()
