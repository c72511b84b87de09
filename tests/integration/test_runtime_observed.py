"""What a running server tells of itself: metrics over workers and reloads, the access log, ids and trace context."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import httpx

from hedgerow.clock import SystemClock
from runtime.exchange import Exchange, Request, Response
from runtime.observing.access_log import AccessLog
from tests import scoring_models as models
from tests.fixtures.parts import program
from tests.scoring_server import ScoringServer, script
from tests.waiting import wait_for

ROW = [5.1, 3.5, 1.4, 0.2]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRITONS = (
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_pending_request_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
)


class Nowhere:
    """A connection for an exchange that is only looked at."""

    since = 0.0

    def send(self, exchange: Exchange, response: Response) -> None:
        raise AssertionError("nothing is sent here")

    send_head = send

    def send_part(self, part: bytes) -> bool:
        raise AssertionError("nothing is sent here")

    def send_end(self, exchange: Exchange, *, whole: bool) -> None:
        raise AssertionError("nothing is sent here")


# Metrics --------------------------------------------------------------------------------------------------------------


def test_promtool_objects_to_nothing_but_tritons_and_mlservers_names(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        server.score([ROW, ROW])
        server.score([[1]])
        page = server.get("/metrics").text
    found = subprocess.run(
        [program("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in (found.stdout + found.stderr).splitlines() if line]
    assert [line for line in said if not line.startswith("nv_inference_")] == []
    assert "error while linting" not in found.stderr
    for name in TRITONS:
        assert f'{name}{{model="iris",version="1"' in page, name


def test_counts_of_several_workers_add_up_and_outlive_a_reload(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--workers", "2") as server:
        wait_for(lambda: server.metric("hedgerow_workers_ready") == 2, what="both workers")
        for _ in range(20):
            assert server.score([ROW, ROW]).status_code == 200
        before = set(server.workers())
        os.kill(server.process.pid, signal.SIGHUP)
        wait_for(lambda: len(server.workers()) == 2 and not before & set(server.workers()), what="new workers")
        assert server.score([ROW]).status_code == 200
        iris = '{model="iris",version="1"}'
        # A worker counts once its answer is on the way, and another one may tell the page.
        wait_for(lambda: server.metric(f"nv_inference_count{iris}") == 41, what="the last one's count")
        assert server.metric(f"nv_inference_request_success{iris}") == 21
        assert server.metric(f"model_infer_request_success_total{iris}") == 21
        assert server.metric('hedgerow_request_seconds_count{route="score"}') == 21
        assert server.metric("hedgerow_batch_rows_sum" + iris) == 41
        assert server.metric("hedgerow_workers_started_total") == 4
        wait_for(lambda: server.metric("hedgerow_workers_ready") == 2, what="the dead workers' gauges to go")


def test_parts_of_a_request_add_up_to_it(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        for rows in (1, 3, 4000):
            assert server.score([ROW] * rows).status_code == 200
        parts = {
            name: server.metric(f'nv_inference_{name}_duration_us{{model="iris",version="1"}}')
            for name in ("request", "queue", "compute_input", "compute_infer", "compute_output")
        }
    whole = parts.pop("request")
    assert abs(whole - sum(parts.values())) < 1, parts
    assert all(value >= 0 for value in parts.values())


def test_failures_have_a_reason(tmp_path: Path) -> None:
    with ScoringServer(
        tmp_path, "--script", script(tmp_path, "def init(): pass\ndef run(data): raise ValueError(data)")
    ) as server:
        assert server.post("/score", "x").status_code == 500
        key = 'model="score",version="1",reason='
        assert server.metric(f'nv_inference_request_failure{{{key}"BACKEND"}}') == 1
        assert server.metric(f'nv_inference_request_failure{{{key}"REJECTED"}}') == 0
        assert server.metric('hedgerow_requests_total{route="score",status="500"}') == 1


def test_processes_connections_bytes_and_memory(tmp_path: Path) -> None:
    body = "import os\ndef init(): pass\ndef run(data):\n    if data == 'die': os._exit(1)\n    return data"
    with ScoringServer(tmp_path, "--script", script(tmp_path, body), "--workers", "2") as server:
        ready, standby = 'hedgerow_script_processes{state="ready"}', 'hedgerow_script_processes{state="standby"}'
        wait_for(lambda: (server.metric(ready), server.metric(standby)) == (2, 1), what="two processes and a standby")
        assert server.metric("hedgerow_script_process_restarts_total") == 0
        assert server.post("/score", "die").status_code == 502
        wait_for(lambda: server.metric("hedgerow_script_process_restarts_total") == 1, what="the replacement")
        wait_for(lambda: (server.metric(ready), server.metric(standby)) == (2, 1), what="all of them again")
        with httpx.Client(trust_env=False) as kept:
            kept.get(server.url)
            assert server.metric("hedgerow_connections ") == 2, "the kept one and the one that asks"
        received, sent = server.metric("hedgerow_received_bytes_total"), server.metric("hedgerow_sent_bytes_total")
        assert server.post("/score", "y" * 50_000, headers={"accept-encoding": "identity"}).status_code == 200
        assert 50_000 < server.metric("hedgerow_received_bytes_total") - received < 52_000
        assert server.metric("hedgerow_sent_bytes_total") - sent > 50_000
        for process in ("worker", "script"):
            assert server.metric(f'hedgerow_resident_memory_bytes{{process="{process}"}}') > 10_000_000
            assert server.metric(f'hedgerow_cpu_seconds_total{{process="{process}"}}') > 0


def test_requests_that_wait_are_seen(tmp_path: Path) -> None:
    body = """
        import pathlib, time
        def init(): pass
        def run(data):
            while not pathlib.Path(data).exists():
                time.sleep(0.01)
            return "done"
        """
    with ScoringServer(tmp_path, "--script", script(tmp_path, body), "--queue-wait-ms", "30000") as server:
        flag = tmp_path / "go"
        request = f"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: {len(str(flag))}\r\n\r\n{flag}".encode()
        callers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        for caller in callers:
            caller.sendall(request)
        wait_for(lambda: server.metric("hedgerow_queue_depth") == 2, what="two requests that wait")
        assert server.metric("hedgerow_in_flight") == 3
        flag.touch()
        for caller in callers:
            assert caller.recv(4096).startswith(b"HTTP/1.1 200")
            caller.close()
        wait_for(lambda: server.metric("hedgerow_queue_depth") == server.metric("hedgerow_in_flight") == 0, what="nobody waiting")


# The access log -------------------------------------------------------------------------------------------------------


def access_lines(server: ScoringServer) -> list[dict[str, object]]:
    found = [json.loads(line) for line in server.process.log_text().splitlines() if line.startswith('{"time"')]
    return [entry for entry in found if "duration_ms" in entry]


def test_json_lines_tell_ids_model_times_and_sizes(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--access-log", "json") as server:
        ids = {"x-request-id": "r-1", "x-ms-client-request-id": "c-1", "traceparent": PARENT}
        server.score([ROW, ROW], headers=ids)
        server.get('/nowhere"%0A{"time"')
        server.post("/score", b"{", headers={"x-request-id": "r-2"})
        wait_for(lambda: len(access_lines(server)) == 3, what="three lines")
        scored, lost, refused = access_lines(server)
    assert scored["method"] == "POST"
    assert (scored["path"], scored["route"], scored["status"]) == ("/score", "score", 200)
    assert (scored["request_id"], scored["client_request_id"]) == ("r-1", "c-1")
    assert scored["trace_id"] == PARENT.split("-")[1]
    assert (scored["model"], scored["version"], scored["rows"], scored["batch"]) == ("iris", "1", 2, 1)
    assert scored["caller"] == "127.0.0.1"
    assert scored["bytes_in"] == len(json.dumps([ROW, ROW]))
    assert isinstance(scored["duration_ms"], float)
    assert isinstance(scored["queued_ms"], float)
    assert isinstance(scored["ran_ms"], float)
    assert scored["queued_ms"] + scored["ran_ms"] <= scored["duration_ms"] + 0.01
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(scored["time"]))
    assert (lost["status"], lost.get("model")) == (404, None)
    assert (refused["status"], refused["request_id"]) == (400, "r-2")


def test_text_lines_look_like_azmlinfsrvs_and_cannot_be_forged(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--access-log", "text") as server:
        size = len(server.score([ROW]).content)
        server.get("/a%0APOST /score 200 0.001ms 3%1b[2J")
        with socket.create_connection(("127.0.0.1", server.port)) as caller:
            caller.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n")
            assert b" 413 " in caller.recv(4096)
        wait_for(lambda: " 413 " in server.process.log_text(), what="the refused request's line")
        lines = [line for line in server.process.log_text().splitlines() if " access - " in line]
    assert len(lines) == 3
    assert re.search(rf" access - POST /score 200 \d+\.\d{{3}}ms {size}$", lines[0])
    assert "\\nPOST" in lines[1]
    assert "\x1b" not in lines[1]


def test_no_line_without_being_asked(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        server.score([ROW])
        assert "/score" not in server.process.log_text()


def test_a_log_that_nobody_takes_holds_up_no_request_and_is_bounded() -> None:
    reading, writing = os.pipe()
    dropped: list[int] = []
    log = AccessLog("json", SystemClock(), lambda: dropped.append(1), descriptor=writing)
    log.start()
    exchange = Exchange(Nowhere(), Request("POST", "/score", body=b"x"), keep_alive=True)
    answer = Response(200, b"[0]")
    try:
        # A pipe takes 64 KiB, which is far less than these.
        for _ in range(30_000):
            log.sent(exchange, answer)
        wait_for(lambda: dropped, what="lines that are dropped instead of waited for")
        os.set_blocking(reading, False)
        taken = bytearray()

        def drained() -> bool:
            with contextlib.suppress(BlockingIOError):
                while part := os.read(reading, 1 << 20):
                    taken.extend(part)
            return taken.count(b"\n") + len(dropped) == 30_000

        wait_for(drained, what="every line either taken or counted as dropped")
        assert all(json.loads(line)["status"] == 200 for line in taken.splitlines())
    finally:
        log.stop()
        os.close(reading)
        os.close(writing)


# Trace context --------------------------------------------------------------------------------------------------------


def test_trace_context_goes_into_the_script_and_comes_back(tmp_path: Path) -> None:
    body = """
        import os
        def init(): pass
        def run(data, request_headers):
            return [request_headers.get("Traceparent"), request_headers.get("Tracestate"), os.environ.get("TRACEPARENT")]
        """
    with ScoringServer(tmp_path, "--script", script(tmp_path, body)) as server:
        answer = server.post("/score", "x", headers={"traceparent": PARENT, "tracestate": "vendor=1"})
        assert answer.json() == [PARENT, "vendor=1", PARENT]
        assert (answer.headers["traceparent"], answer.headers["tracestate"]) == (PARENT, "vendor=1")
        without = server.post("/score", "x")
        assert without.json() == [None, None, None], "one call's context is not the next one's"
        assert "traceparent" not in without.headers
        wrong = server.post("/score", "x", headers={"traceparent": "00-zz-11-01"})
        assert wrong.status_code == 200
        assert "traceparent" not in wrong.headers


def test_scripts_that_take_no_headers_find_it_in_their_environment(tmp_path: Path) -> None:
    body = "import os\ndef init(): pass\ndef run(data): return [os.environ.get('TRACEPARENT'), os.environ.get('TRACESTATE')]"
    with ScoringServer(tmp_path, "--script", script(tmp_path, body)) as server:
        answer = server.post("/score", "x", headers={"traceparent": PARENT, "tracestate": "a=b"})
        assert answer.json() == [PARENT, "a=b"]


def test_infer_says_ids_again(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": ROW}]}
        answer = server.client.post(
            f"{server.url}/v2/models/iris/infer", json=body, headers={"x-request-id": "r9", "traceparent": PARENT}
        )
        assert (answer.headers["x-request-id"], answer.headers["traceparent"]) == ("r9", PARENT)
