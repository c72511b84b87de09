"""What REST has of limits, keys, health and orderly ends, asked of gRPC by Triton's client."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from onnx import TensorProto, helper
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests import scoring_models as models
from tests.grpc_calls import address, filled, pair, raw_request, stream
from tests.oip_models import put_models
from tests.scoring_server import ScoringServer, script
from tests.waiting import free_port, wait_for

KEY = "k" * 32
SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"
INFERENCE = "inference.GRPCInferenceService"


def named(service: str) -> bytes:
    """A HealthCheckRequest as it is on the wire."""
    return b"\x0a" + bytes([len(service)]) + service.encode() if service else b""


def check(channel: Any, service: str = "", metadata: Any = None) -> bytes:
    answer: bytes = channel.unary_unary("/grpc.health.v1.Health/Check")(named(service), metadata=metadata, timeout=10)
    return answer


def watch(channel: Any, service: str = "") -> Any:
    return channel.unary_stream("/grpc.health.v1.Health/Watch")(named(service))


def rounds(count: int) -> Any:
    """An input for the model that runs as long as it is told to."""
    return filled("rounds", np.array(count, np.int64), "INT64")


# Health ---------------------------------------------------------------------------------------------------------------


def test_probes_are_answered_by_service_name(tmp_path: Path) -> None:
    with (
        ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0") as server,
        grpc.insecure_channel(address(server)) as channel,
    ):
        assert {check(channel), check(channel, INFERENCE), check(channel, "grpc.health.v1.Health")} == {SERVING}
        with pytest.raises(grpc.RpcError) as refused:
            check(channel, "other")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        unknown = watch(channel, "other")
        assert next(unknown) == SERVICE_UNKNOWN
        unknown.cancel()
        watched = watch(channel)
        assert next(watched) == SERVING
        server.process.send(signal.SIGTERM)
        assert list(watched) == [NOT_SERVING], "told before the end, which a watcher does not hold up"
        wait_for(lambda: not server.process.is_running, timeout_s=5, what="the end")


def test_not_serving_while_a_model_loads(tmp_path: Path) -> None:
    flag = tmp_path / "go"
    body = f"""
        import pathlib, time
        def init():
            while not pathlib.Path({str(flag)!r}).exists():
                time.sleep(0.01)
        def run(data): return data
        """
    port = free_port()
    with ScoringServer(tmp_path, "--script", script(tmp_path, body), "--grpc-port", port, wait=False) as server:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            watched = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", wait_for_ready=True, timeout=30)
            assert next(watched) == NOT_SERVING
            flag.touch()
            assert next(watched) == SERVING
            watched.cancel()
        wait_for(server.ready_file.exists, what="readiness")


def test_health_asks_for_a_key_only_when_told_to(tmp_path: Path) -> None:
    for closed in (False, True):
        argv = ["--model", models.echo(), "--grpc-port", "0", *(["--auth-health"] if closed else [])]
        with (
            ScoringServer(tmp_path / str(closed), *argv, env={"HEDGEROW_PRIMARY_KEY": KEY}) as server,
            grpc.insecure_channel(address(server)) as channel,
        ):
            assert check(channel, metadata=(("authorization", f"Bearer {KEY}"),)) == SERVING
            if not closed:
                assert check(channel) == next(watch(channel)) == SERVING
                continue
            for ask in (lambda: check(channel), lambda: next(watch(channel))):
                with pytest.raises(grpc.RpcError) as refused:
                    ask()
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_bytes_that_are_no_message_are_refused_and_fill_no_log(tmp_path: Path) -> None:
    with (
        ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0") as server,
        grpc.insecure_channel(address(server)) as channel,
    ):
        for call in (f"{INFERENCE}/ModelInfer", f"{INFERENCE}/ServerReady", "grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(f"/{call}")(b"\xff" * 3, timeout=10)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as refused:
            next(channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\xff" * 3, timeout=10))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        good = raw_request("echo", "x", np.zeros((1, 2), np.float32), "FP32").SerializeToString()
        streaming = channel.stream_stream(f"/{INFERENCE}/ModelStreamInfer")(iter([b"\xff" * 3, good]), timeout=10)
        bad, fine = (service_pb2.ModelStreamInferResponse.FromString(answer) for answer in streaming)
        assert ("no such message" in bad.error_message, fine.error_message) == (True, "")
        assert "Traceback" not in server.process.log_text()


# Sizes ----------------------------------------------------------------------------------------------------------------


def test_messages_are_limited_as_they_are_and_unpacked(tmp_path: Path) -> None:
    options = [("grpc.max_send_message_length", -1)]
    with (
        ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0", "--max-body-bytes", "1000000") as server,
        grpc.insecure_channel(address(server), options) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        # A hundred megabytes of zeros are a hundred kilobytes packed.
        for size, packing in ((200_000, None), (12_500_000, grpc.Compression.Gzip), (12_500_000, grpc.Compression.Deflate)):
            with pytest.raises(grpc.RpcError) as refused:
                stub.ModelInfer(raw_request("echo", "x", np.zeros((size, 2), np.float32), "FP32"), compression=packing)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            small = raw_request("echo", "x", np.ones((100_000, 2), np.float32), "FP32")
            assert stub.ModelInfer(small, compression=packing).raw_output_contents[0] == small.raw_input_contents[0]
        (worker,) = server.workers()
        peak = next(line for line in Path(f"/proc/{worker}/status").read_text().splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 200_000, "kilobytes: nothing was unpacked to see that it is too large"


def test_messages_under_way_are_limited_together(tmp_path: Path) -> None:
    root = put_models(tmp_path / "repository", endless=models.endless(), echo=models.echo())
    argv = ["--model-repository", root, "--grpc-port", "0", "--timeout-ms", "2000"]
    with (
        ScoringServer(tmp_path / "s", *argv, "--max-buffered-bytes", "1000000", "--max-body-bytes", "900000") as server,
        triton.InferenceServerClient(address(server)) as client,
    ):
        ends: queue.Queue[object] = queue.Queue()
        # Its id makes it large; the model has it for two seconds.
        client.async_infer("endless", [rounds(10**12)], lambda result, error: ends.put(error), request_id="x" * 800_000)
        wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the large one")
        large = filled("x", np.zeros((50_000, 2), np.float32), "FP32")
        with pytest.raises(InferenceServerException, match=r"UNAVAILABLE.*all the memory"):
            client.infer("echo", [large])
        assert client.infer("echo", [pair(1)]).as_numpy("y").tolist() == [[1, -1]]
        assert "DEADLINE_EXCEEDED" in str(ends.get(timeout=10))
        assert client.infer("echo", [large]).as_numpy("y").shape == (50_000, 2)


def test_packed_messages_in_streams(tmp_path: Path) -> None:
    with (
        ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0") as server,
        triton.InferenceServerClient(address(server)) as client,
    ):
        for packing in ("gzip", "deflate"):
            with stream(client, compression_algorithm=packing) as answers:
                large = np.arange(200_000, dtype=np.float32).reshape(-1, 2)
                client.async_stream_infer("echo", [filled("x", large, "FP32")])
                result, problem = answers.get(timeout=20)
                assert problem is None
                np.testing.assert_array_equal(result.as_numpy("y"), large)


# Time -----------------------------------------------------------------------------------------------------------------


def test_calls_whose_deadline_passed_while_they_waited_are_never_run(tmp_path: Path) -> None:
    argv = ["--model", models.endless(), "--grpc-port", "0", "--timeout-ms", "3000", "--queue-wait-ms", "20000"]
    with (
        ScoringServer(tmp_path, *argv, "--max-concurrent", "1") as server,
        triton.InferenceServerClient(address(server)) as client,
    ):
        busy: queue.Queue[object] = queue.Queue()
        client.async_infer("endless", [rounds(10**12)], lambda result, error: busy.put(error))
        wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the model to be busy")
        late: queue.Queue[object] = queue.Queue()
        for _ in range(5):
            client.async_infer("endless", [rounds(10**12)], lambda result, error: late.put(error), client_timeout=0.5)
        assert all("DEADLINE_EXCEEDED" in str(late.get(timeout=10)) for _ in range(5))
        wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the others to be dropped")
        assert "Scoring timeout" in str(busy.get(timeout=20))
        # Had one of them run, it would have kept the model for three seconds more.
        soon = client.infer("endless", [rounds(0)], client_timeout=2)
        assert soon.as_numpy("y").tolist() == [1]
        assert server.metric('nv_inference_exec_count{model="endless"') == 1


def test_a_full_queue_is_an_answer(tmp_path: Path) -> None:
    argv = ["--model", models.endless(), "--grpc-port", "0", "--timeout-ms", "2000", "--max-concurrent", "1", "--max-queue", "1"]
    with ScoringServer(tmp_path, *argv) as server, triton.InferenceServerClient(address(server)) as client:
        ends: queue.Queue[object] = queue.Queue()
        for _ in range(5):
            client.async_infer("endless", [rounds(10**12)], lambda result, error: ends.put(error))
        found = Counter(str(ends.get(timeout=20)).partition("]")[0] for _ in range(5))
        assert found["[StatusCode.UNAVAILABLE"] == 4, found


def test_calls_wait_for_a_worker_that_comes_back(tmp_path: Path) -> None:
    # So many that loading them takes a while.
    root = put_models(tmp_path / "repository", echo=models.echo(), **{f"m{number}": models.iris() for number in range(40)})
    argv = ["--model-repository", root, "--grpc-port", "0", "--queue-wait-ms", "20000"]
    with ScoringServer(tmp_path / "s", *argv) as server:
        (before,) = server.workers()
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: before not in server.workers(), what="the worker's end")

        said: list[str] = []

        def scored() -> bool:
            try:
                # A client of its own each time: after a failure they wait before they connect again.
                with triton.InferenceServerClient(address(server)) as client:
                    return bool(client.infer("echo", [pair(1)]).as_numpy("y").tolist() == [[1, -1]])
            except InferenceServerException as problem:
                said.append(str(problem))
                return False

        wait_for(scored, what="an answer of the next worker")
        assert not [sentence for sentence in said if "loading" in sentence]


# The end --------------------------------------------------------------------------------------------------------------


def test_an_idle_stream_does_not_hold_up_the_end_and_is_told(tmp_path: Path) -> None:
    with (
        ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0") as server,
        triton.InferenceServerClient(address(server)) as client,
        stream(client) as answers,
    ):
        client.async_stream_infer("echo", [pair(1)])
        assert answers.get(timeout=20)[1] is None
        server.process.send(signal.SIGTERM)
        wait_for(lambda: not server.process.is_running, timeout_s=3, what="the end")
        assert "UNAVAILABLE" in str(answers.get(timeout=5)[1])


def test_what_a_stream_has_sent_is_answered_before_the_end(tmp_path: Path) -> None:
    argv = ["--model", models.endless(), "--grpc-port", "0", "--timeout-ms", "10000"]
    with (
        ScoringServer(tmp_path, *argv) as server,
        triton.InferenceServerClient(address(server)) as client,
        stream(client) as answers,
    ):
        # More than the server takes at once; and the last would wait too long, did they not wait for one another.
        for _ in range(30):
            client.async_stream_infer("endless", [rounds(20_000)])
        wait_for(lambda: server.metric("hedgerow_in_flight") >= 1, what="the first to be scored")
        server.process.send(signal.SIGTERM)
        found = [answers.get(timeout=30) for _ in range(31)]
        assert [problem for _, problem in found[:30]] == [None] * 30
        assert "UNAVAILABLE" in str(found[30][1])
        wait_for(lambda: not server.process.is_running, timeout_s=5, what="the end")


def test_a_busy_stream_ends_all_the_same(tmp_path: Path) -> None:
    with (
        ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0") as server,
        triton.InferenceServerClient(address(server)) as client,
        stream(client) as answers,
    ):
        problems: list[object] = []

        def again() -> None:
            while not problems:
                # What is refused here was told already.
                with contextlib.suppress(InferenceServerException):
                    client.async_stream_infer("echo", [pair(1)])
                _, problem = answers.get(timeout=20)
                if problem is not None:
                    problems.append(problem)

        thread = threading.Thread(target=again)
        thread.start()
        wait_for(lambda: server.metric('nv_inference_request_success{model="echo"') > 20, what="answers")
        server.process.send(signal.SIGTERM)
        wait_for(lambda: not server.process.is_running, timeout_s=5, what="the end")
        thread.join(10)
        assert "UNAVAILABLE" in str(problems[0])


def test_a_stream_shares_runs_of_the_model_and_keeps_its_order(tmp_path: Path) -> None:
    with (
        ScoringServer(tmp_path, "--model", takes_a_while(), "--grpc-port", "0") as server,
        triton.InferenceServerClient(address(server)) as client,
        stream(client) as answers,
    ):
        for number in range(60):
            # While the first one, which is long, runs, the others come together however slowly they are sent.
            rows = np.full((100 if number == 0 else 1, 1024), number, np.float32)
            client.async_stream_infer("while", [filled("x", rows, "FP32")], request_id=str(number))
        found = [answers.get(timeout=30)[0] for _ in range(60)]
        assert [one.get_response().id for one in found] == [str(number) for number in range(60)]
        assert [one.as_numpy("y")[0, 0] for one in found] == list(range(60))
        assert all(one.get_response().parameters["triton_final_response"].bool_param for one in found)
        assert server.metric('nv_inference_exec_count{model="while"') < 60


def takes_a_while() -> Path:
    """x f32[N,1024] times a hundred matrices of ones on their diagonals: some milliseconds."""
    matrix = np.eye(1024, dtype=np.float32).tobytes()
    kind = TensorProto.FLOAT
    names = ["x", *(f"x{step}" for step in range(1, 100)), "y"]
    nodes = [helper.make_node("MatMul", [given, "w"], [made]) for given, made in itertools.pairwise(names)]
    weights = [helper.make_tensor("w", kind, [1024, 1024], matrix, raw=True)]
    return models.build("while", nodes, [models.value("x", kind, ["N", 1024])], [models.value("y", kind, ["N", 1024])], weights)


def test_a_stream_that_its_caller_leaves_is_dropped(tmp_path: Path) -> None:
    argv = ["--model", models.endless(), "--grpc-port", "0", "--timeout-ms", "2000", "--queue-wait-ms", "10000"]
    with ScoringServer(tmp_path, *argv) as server, triton.InferenceServerClient(address(server)) as client:
        client.start_stream(lambda result, error: None)
        for _ in range(20):
            client.async_stream_infer("endless", [rounds(10**12)])
        wait_for(lambda: server.metric("hedgerow_in_flight") > 0, what="the stream's requests")
        client.stop_stream(cancel_requests=True)
        wait_for(lambda: server.metric("hedgerow_in_flight") == 0, what="nothing left of it")
        assert client.infer("endless", [rounds(0)]).as_numpy("y")[0] == 1


def test_no_call_of_many_fails_while_the_worker_is_replaced_again_and_again(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo(), "--grpc-port", "0") as server:
        ends: Counter[str] = Counter()
        over = threading.Event()

        async def score(client: Any) -> None:
            while not over.is_set():
                try:
                    found = (await client.infer("echo", [pair(3)])).as_numpy("y").tolist()
                    ends["ok" if found == [[3, -3]] else "wrong"] += 1
                except InferenceServerException as problem:
                    ends[str(problem)] += 1

        async def many() -> None:
            async with triton_aio.InferenceServerClient(address(server)) as client:
                await asyncio.gather(*(score(client) for _ in range(24)))

        thread = threading.Thread(target=lambda: asyncio.run(many()))
        thread.start()
        try:
            for _ in range(3):
                count, before = ends["ok"], server.workers()
                wait_for(lambda count=count: ends["ok"] > count + 100, what="answers")  # type: ignore[misc]  # bound in the loop
                server.process.send(signal.SIGHUP)
                wait_for(lambda before=before: not set(before) & set(server.workers()), timeout_s=20, what="the new worker alone")  # type: ignore[misc]  # bound in the loop
        finally:
            over.set()
            thread.join(20)
        assert set(ends) == {"ok"}, ends


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 50_000])
def test_texts_that_are_no_utf8_are_refused_whole(tmp_path: Path, size: int) -> None:
    root = put_models(tmp_path / "repository", text=models.echo_text())
    with (
        ScoringServer(tmp_path / "s", "--model-repository", root, "--grpc-port", "0") as server,
        triton.InferenceServerClient(address(server)) as client,
        grpc.insecure_channel(address(server)) as channel,
    ):
        bad = b"\xff" * size
        raw = filled("x", np.array([bad], np.object_), "BYTES")
        typed = raw_request("text", "x", np.zeros(0, np.uint8), "BYTES")
        del typed.raw_input_contents[:]
        typed.inputs[0].shape[:] = [1]
        typed.inputs[0].contents.bytes_contents.append(bad)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        asks: list[Callable[[], object]] = [lambda: client.infer("text", [raw]), lambda: stub.ModelInfer(typed)]
        for ask in asks:
            with pytest.raises((InferenceServerException, grpc.RpcError), match=r"INVALID_ARGUMENT[\s\S]*UTF-8"):
                ask()
        good = filled("x", np.array(["é".encode()], np.object_), "BYTES")
        assert client.infer("text", [good]).as_numpy("y")[0] == "é".encode()
