"""A scoring server's life under load: started, overloaded, shot at, reloaded, told to stop."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests import scoring_models as models
from tests.scoring_load import ScoringLoad
from tests.scoring_server import ScoringServer, script
from tests.waiting import accepts_connections, wait_for

ROW = [5.1, 3.5, 1.4, 0.2]
BODY = json.dumps({"data": [ROW]}).encode()


class Load(ScoringLoad):
    """Every answer is checked. Half of the callers keep their connection, half make a new one for each request; who is refused
    ends.
    """

    def __init__(self, port: int, clients: int = 6) -> None:
        self.answered_at: list[float] = []
        self._port = port
        super().__init__(clients, begun=50)

    def call(self, number: int) -> None:
        keep = number % 2 == 0
        connection: http.client.HTTPConnection | None = None
        while not self.stopped.is_set():
            connection = connection or http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            end, closed = self._one(connection, keep)
            self.ends[end] += 1
            if end == "refused":
                break
            self.answered_at.append(time.monotonic())
            if closed or not keep:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _one(self, connection: http.client.HTTPConnection, keep: bool) -> tuple[str, bool]:
        try:
            connection.request("POST", "/score", BODY, {} if keep else {"Connection": "close"})
        except ConnectionRefusedError:
            return "refused", True
        except OSError as problem:
            return f"sending: {problem!r}", True
        try:
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as problem:
            return f"receiving: {problem!r}", True
        if response.status != 200:
            return f"status {response.status}", response.will_close
        return ("ok" if json.loads(body)["label"] == [0] else "wrong answer"), response.will_close


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_fails_no_request(tmp_path: Path, workers: int) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--workers", str(workers)) as server:
        wait_for(lambda: server.metric("hedgerow_workers_ready") == workers, what="all workers")
        with Load(server.port) as load:
            server.process.send(signal.SIGTERM)
            wait_for(lambda: not server.process.is_running, timeout_s=15, what="the server to end")
        assert load.failures == {}, f"of {load.ends['ok']} answered"
        assert server.exit_code == 0


def test_killing_a_worker_under_load_cuts_only_what_it_held(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server, Load(server.port, clients=4) as load:
        (worker,) = server.workers()
        scored = load.ends["ok"]
        killed_at = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: load.ends["ok"] > scored + 50, what="answers after the kill")
        after = next(moment for moment in load.answered_at if moment > killed_at + 0.05)
        assert after - killed_at < 1.0, "the next request is answered within one second"
        assert sum(load.failures.values()) <= 4, f"at most one request per client was inside: {load.failures}"
        assert not any(end.startswith("status") for end in load.ends)
        assert server.workers() != [worker]
        assert server.metric("hedgerow_workers_started_total") == 2
        assert server.metric("hedgerow_workers_ready") == 1


def test_a_reload_under_load_fails_no_request(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server, Load(server.port) as load:
        before = server.workers()
        server.process.send(signal.SIGHUP)
        wait_for(lambda: not set(before) & set(server.workers()), timeout_s=15, what="the old worker to go")
        count = load.ends["ok"]
        wait_for(lambda: load.ends["ok"] > count + 50, what="answers of the new worker")
        assert load.failures == {}


def test_a_worker_that_ends_leaves_the_masters_working_folder_alone(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris()) as server:
        place = Path(f"/proc/{server.ready['pid']}/cwd").readlink()
        for _ in range(3):
            before = server.workers()
            # As a reload does, and anything else by which a worker ends in order.
            os.kill(before[0], signal.SIGTERM)
            wait_for(lambda: server.workers() and not set(before) & set(server.workers()), what="the next worker")  # noqa: B023 - called at once
            wait_for(lambda: server.get("/v2/health/ready").status_code == 200, what="its readiness")
        assert Path(f"/proc/{server.ready['pid']}/cwd").readlink() == place
        assert place.is_dir()
    assert not place.exists(), "the master removes it"


def infer_rounds(server: ScoringServer, rounds: int) -> tuple[int, dict[str, object], float]:
    body = {"inputs": [{"name": "rounds", "datatype": "INT64", "shape": [], "data": [rounds]}]}
    answer = server.infer("endless", body)
    return answer.status_code, answer.json(), answer.elapsed.total_seconds()


@pytest.mark.alone
def test_a_model_that_runs_too_long_is_answered_on_time_and_its_turn_is_free_again(tmp_path: Path) -> None:
    options = ("--timeout-ms", "300", "--max-concurrent", "1")
    with ScoringServer(tmp_path, "--model", models.endless(), *options) as server:
        workers = server.workers()
        for _ in range(3):
            status, answer, took = infer_rounds(server, 10**12)
            assert (status, answer) == (504, {"error": "Scoring timeout after 300 ms"})
            assert 0.3 <= took < 0.9
        assert infer_rounds(server, 1)[0] == 200
        assert server.score({"inputs": {"rounds": 10**12}}).json() == {"message": "Scoring timeout after 300 ms"}
        assert server.workers() == workers, "onnxruntime stops at the next operator: nothing needs replacing"
        assert server.metric('nv_inference_request_failure{model="endless",version="1",reason="CANCELED"}') == 4


def test_overload_is_an_answer_and_health_gets_through(tmp_path: Path) -> None:
    options = ("--timeout-ms", "3000", "--max-concurrent", "2", "--max-queue", "3", "--queue-wait-ms", "400")
    with ScoringServer(tmp_path, "--model", models.endless(), *options) as server:
        answers: list[tuple[int, dict[str, object], float]] = []
        threads = [threading.Thread(target=lambda: answers.append(infer_rounds(server, 10**12))) for _ in range(12)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answers) >= 10, what="all but the two that run")
        assert server.get("/v2/health/ready").status_code == 200
        assert server.get("/").text == "Healthy"
        for thread in threads:
            thread.join(20)
        statuses = Counter(status for status, _, _ in answers)
        assert statuses == {503: 10, 504: 2}
        waited = sorted(took for status, _, took in answers if status == 503)
        assert waited[-1] < 1.5, "nobody waits longer than the queue wait, and a little"
        assert waited[0] < 0.35, "a full queue refuses at once"
        assert server.metric('nv_inference_request_failure{model="endless",version="1",reason="REJECTED"}') == 10


SLOW_START = """
    import os, threading
    from pathlib import Path
    def init():
        gate = Path(os.environ["AZUREML_MODEL_DIR"]) / "open"
        while not gate.exists():
            threading.Event().wait(0.02)
    def run(data):
        return "scored"
"""


def test_it_is_alive_and_not_ready_while_it_loads(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = script(tmp_path, SLOW_START)
    server = ScoringServer(tmp_path, "--script", file, "--model-dir", tmp_path / "model", wait=False)
    with server:
        server.wait_for_log("listening on http://")
        line = next(line for line in server.process.log_text().splitlines() if "listening on" in line)
        address = line.rsplit(" ", 1)[1]
        ready = server.client.get(f"{address}/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        assert server.client.get(f"{address}/v2/health/live").json() == {"live": True}
        assert server.client.get(f"{address}/").text == "loading"
        refused = server.client.post(f"{address}/score", content="x")
        assert refused.status_code == 503
        assert "it is loading" in refused.json()["message"]
        assert refused.headers["retry-after"] == "1"
        assert not server.ready_file.exists()
        (tmp_path / "model" / "open").touch()
        wait_for(server.ready_file.exists, what="the ready-file")
        assert server.get("/v2/health/ready").json() == {"ready": True}
        assert server.post("/score", "x").json() == "scored"


def test_a_killed_master_leaves_no_worker_behind(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo()) as server:
        (worker,) = server.workers()
        server.process.kill()
        wait_for(lambda: not Path(f"/proc/{worker}").exists(), what="the orphan to end")


def test_ctrl_c_in_a_terminal_ends_it_quietly(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo()) as server:
        # A terminal signals the whole foreground group: master and workers.
        os.killpg(server.process.pid, signal.SIGINT)
        wait_for(lambda: not server.process.is_running, what="the server to end")
        assert server.exit_code == 0
        assert "Traceback" not in server.process.log_text()
    assert not server.ready_file.exists()


@pytest.mark.alone
def test_a_silent_caller_may_still_ask_while_it_drains(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo()) as server:
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)

        def is_the_last() -> bool:
            kept.request("POST", "/score", b"[[1, 2]]")
            response = kept.getresponse()
            assert (response.status, bool(response.read())) == (200, True)
            return response.will_close

        assert not is_the_last()
        kept.auto_open = 0
        server.process.send(signal.SIGTERM)
        wait_for(lambda: not accepts_connections(server.port), what="the closed door")
        assert is_the_last()
        kept.close()
        wait_for(lambda: not server.process.is_running, what="the server to end")
        assert server.exit_code == 0


def test_silent_connections_do_not_hold_up_the_end(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo()) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        assert server.score([[1, 2]]).status_code == 200
        server.process.send(signal.SIGTERM)
        wait_for(lambda: not server.process.is_running, timeout_s=10, what="the server to end")
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "Nothing to serve was named. Give one of"),
        (("--model", "m.onnx", "--script", "s.py"), 2, "More than one thing to serve"),
        (("--model", "m.onnx", "--workers", "0"), 2, "workers cannot be 0"),
        (("--model", "m.onnx", "--nonsense", "1"), 2, "unrecognized arguments"),
        (("--model", "none.onnx"), 3, "Model none cannot be loaded from none.onnx: there is no such file"),
        (("--image", "."), 3, "hedgerow.json: No such file"),
        (("--script", "score.py"), 3, "there is no such file"),
    ],
)
def test_what_cannot_start_says_why_in_one_sentence(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    with ScoringServer(tmp_path, *arguments, wait=False) as server:
        wait_for(lambda: not server.process.is_running, what="the server to give up")
        assert server.exit_code == code
        assert says in server.process.log_text()
        assert "Traceback" not in server.process.log_text()


def test_models_that_must_not_be_served_end_with_code_3(tmp_path: Path) -> None:
    (models.folder() / "secret.bin").write_bytes(b"\0" * 8)
    junk = tmp_path / "junk.onnx"
    junk.write_text("this is no model")
    unsafe = models.with_external_data("escape", "../secret.bin")
    for file, says in (
        (junk, "it is not an ONNX file"),
        (unsafe, "Model model is refused: its data file '../secret.bin' lies outside its folder"),
        (models.with_custom_operator(), "needs operators that are not built in"),
    ):
        with ScoringServer(tmp_path, "--model", file, wait=False) as server:
            wait_for(lambda: not server.process.is_running, what="the server to give up")
            assert server.exit_code == 3
            assert says in server.process.log_text()
            assert "Traceback" not in server.process.log_text()


def test_data_beside_the_model_is_served(tmp_path: Path) -> None:
    file = models.with_external_data("beside", "weights.bin")
    (file.parent / "weights.bin").write_bytes(b"\0\0\x80\x3f\0\0\0\x40")
    with ScoringServer(tmp_path, "--model", file) as server:
        assert server.score([[1, 1]]).json() == [[2.0, 3.0]]


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ScoringServer(tmp_path, "--model", models.echo(), wait=False)
        server.process.argv[server.process.argv.index("--port") + 1] = str(port)
        with server:
            wait_for(lambda: not server.process.is_running, what="the server to give up")
            assert server.exit_code == 3
            assert f"Cannot listen on 127.0.0.1:{port}: Address already in use" in server.process.log_text()


def test_a_ready_file_that_nobody_could_find_is_refused(tmp_path: Path) -> None:
    server = ScoringServer(tmp_path, "--model", models.echo(), wait=False)
    server.process.argv[server.process.argv.index("--ready-file") + 1] = str(tmp_path / "nowhere" / "ready")
    with server:
        wait_for(lambda: not server.process.is_running, what="the server to give up")
        assert server.exit_code == 2
        assert "its folder is not there or cannot be written. Correct --ready-file." in server.process.log_text()


def test_a_reload_waits_for_the_new_worker_and_survives_a_model_that_is_gone(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(models.iris().read_bytes())
    with ScoringServer(tmp_path / "run", "--model", model) as server, Load(server.port) as load:
        before = server.workers()
        model.write_bytes(b"this is no model")
        server.process.send(signal.SIGHUP)
        server.wait_for_log("a new worker could not start")
        assert server.workers() == before, "the old one goes on"
        model.unlink()
        server.process.send(signal.SIGHUP)
        server.wait_for_log("not reloaded: Model model cannot be loaded")
        model.write_bytes(models.iris().read_bytes())
        server.process.send(signal.SIGHUP)
        wait_for(lambda: not set(before) & set(server.workers()), timeout_s=15, what="the old worker to go")
        assert load.failures == {}
