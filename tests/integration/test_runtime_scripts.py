"""Scoring scripts as they come: good, wrong, loud, failing, leaving, hanging. Each in a real server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scoring_server import ScoringServer, script
from tests.waiting import wait_for

SCRIPT = """
    import json, os, sys
    import registry   # the user's own; ours of that name is not theirs to see
    calls = 0

    def init():
        global model_dir
        model_dir = os.environ["AZUREML_MODEL_DIR"]
        print("init was here")

    def run(raw_data, request_headers):
        global calls
        calls += 1
        data = json.loads(raw_data)
        match data.get("do"):
            case "raise":
                print("about to raise")
                raise ValueError("secret of the script")
            case "exit":
                sys.exit(7)
            case "none":
                return None
            case "nan":
                return float("nan")
            case "bytes":
                return b"not json"
            case "facts":
                return {"cwd": os.getcwd(), "listing": os.listdir("."), "model_dir": model_dir, "own": registry.WHOSE,
                        "token": os.environ.get("HEDGEROW_TELEMETRY_TOKEN"), "first_path": sys.path[0]}
            case "headers":
                return request_headers
        return {"echo": data, "calls": calls}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    folder = tmp_path_factory.mktemp("script")
    file = script(folder, SCRIPT)
    (file.parent / "registry.py").write_text("WHOSE = 'the user'\n")
    (folder / "model").mkdir()
    # The token alone, without an address, sends nothing: it must not leak into the script either.
    environment = {"HEDGEROW_TELEMETRY_TOKEN": "secret"}
    with ScoringServer(folder, "--script", file, "--model-dir", folder / "model", env=environment) as running:
        yield running


def test_run_gets_the_body_and_its_answer_is_json(server: ScoringServer) -> None:
    answer = server.score({"x": [1, 2]})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["echo"] == {"x": [1, 2]}
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert float(answer.headers["x-ms-run-fn-exec-ms"]) >= 0
    assert server.get("/score", params={"x": "1"}).json()["echo"] == {"x": 1}
    calls = server.score({}).json()["calls"]
    assert server.client.request("OPTIONS", server.url + "/score").content == b""
    assert server.score({}).json()["calls"] == calls + 1, "OPTIONS does not call run()"


def test_none_is_an_empty_object_and_nan_stays(server: ScoringServer) -> None:
    assert server.score({"do": "none"}).text == "{}"
    assert server.score({"do": "nan"}).text == "NaN"


def test_the_script_sees_its_own_world(server: ScoringServer) -> None:
    facts = server.score({"do": "facts"}).json()
    assert facts["own"] == "the user", "a user's registry.py stays theirs"
    assert facts["cwd"].endswith("/source"), "relative paths count from the app's root"
    assert "registry.py" in facts["listing"]
    assert facts["model_dir"].endswith("/model")
    assert facts["first_path"].endswith("/source")
    assert facts["token"] is None
    headers = server.score({"do": "headers"}, headers={"x-thing": "1"}).json()
    assert headers["X-Thing"] == "1"


@pytest.mark.parametrize("how", ["raise", "exit", "bytes"])
def test_a_failing_run_fails_its_own_request_and_tells_only_the_log(server: ScoringServer, how: str) -> None:
    workers = server.workers()
    answer = server.score({"do": how})
    assert answer.status_code == 500
    assert answer.json() == {"message": "An unexpected error occurred in scoring script. Check the logs for more info."}
    assert answer.headers["x-ms-run-function-failed"] == "True"
    assert server.score({"fine": 1}).status_code == 200
    assert server.workers() == workers, "nothing was restarted"


def test_the_log_has_the_users_lines_and_prints(server: ScoringServer) -> None:
    server.score({"do": "raise"})
    server.wait_for_log("ValueError: secret of the script")
    log = server.process.log_text()
    assert "source/score.py" in log
    assert "runtime/script.py" not in log, "only the user's frames"
    assert "init was here" in log
    assert "about to raise" in log


def test_a_body_that_is_no_text(server: ScoringServer) -> None:
    answer = server.post("/score", b"\xff\xfe")
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("Input cannot be decoded as UTF-8: ")


def test_a_script_has_no_tensors(server: ScoringServer) -> None:
    assert server.get("/v2/models/score").status_code == 404
    assert server.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def init(): ...", "it has no function run()"),
        ("def run(data): ...", "it has no function init()"),
        ("def init(): ...\ndef run(): ...", "no parameter for the request's body"),
        ("def init(): ...\ndef run(request_headers): ...", "no parameter for the request's body"),
        ("def init(): ...\ndef run(*data): ...", "variadic positional parameter 'data'"),
        ("def init(): ...\ndef run(data, /): ...", "positional-only parameter 'data'"),
        (
            "from inference_schema.schema_decorators import input_schema\n"
            "from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType as T\n"
            "from azureml.contrib.services.aml_request import rawhttp\n"
            "def init(): ...\n@rawhttp\n@input_schema('data', T(1))\ndef run(data): ...",
            "run() cannot be decorated with both @rawhttp and @input_schema",
        ),
        ("import no_such_library", "failed in its import: ModuleNotFoundError: No module named 'no_such_library'"),
        ("def init():\n  1 / 0\ndef run(data): ...", "failed in init(): ZeroDivisionError: division by zero"),
        ("import sys\ndef init():\n  sys.exit(0)\ndef run(data): ...", "failed in init(): SystemExit: 0"),
        ("def run(:", "it is not Python"),
    ],
)
def test_a_script_that_cannot_be_served_ends_with_code_3_and_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    server = ScoringServer(tmp_path, "--script", script(tmp_path, text), wait=False)
    with server:
        wait_for(lambda: not server.process.is_running, what="the server to give up")
        assert server.exit_code == 3
        log = server.process.log_text()
        assert says in log
        assert "Traceback (most recent call last)" not in log or "source/score.py" in log, "never a traceback of ours"
    assert not server.ready_file.exists()


def test_driver_module_takes_over_run(tmp_path: Path) -> None:
    file = script(tmp_path, "import driver as driver_module\ndef init(): ...\n")
    (file.parent / "driver.py").write_text("def run(data): return 'driven ' + data\n")
    with ScoringServer(tmp_path, "--script", file) as server:
        assert server.post("/score", "x").json() == "driven x"


HANGING = """
    import os, threading
    def init(): ...
    def run(data):
        if data == "hang":
            threading.Event().wait()
        return os.getpid()
"""


@pytest.mark.alone
def test_a_run_that_hangs_is_answered_on_time_and_its_worker_replaced(tmp_path: Path) -> None:
    file = script(tmp_path, HANGING)
    with ScoringServer(tmp_path, "--script", file, "--timeout-ms", "300") as server:
        first = server.post("/score", "x").json()
        answer = server.post("/score", "hang")
        assert (answer.status_code, answer.json()) == (500, {"message": "Scoring timeout after 300 ms"})
        assert answer.headers["x-ms-run-function-failed"] == "True"
        assert 0.3 <= answer.elapsed.total_seconds() < 0.8
        again = wait_for(lambda: server.post("/score", "x"), timeout_s=5.0, what="an answer of the new worker")
        assert again.status_code == 200
        assert again.json() != first, "another process answers now"
        assert again.elapsed.total_seconds() < 3.0
        server.wait_for_log("is replaced")


@pytest.mark.alone
def test_while_it_hangs_others_wait_only_so_long(tmp_path: Path) -> None:
    file = script(tmp_path, HANGING)
    with ScoringServer(tmp_path, "--script", file, "--timeout-ms", "2500", "--queue-wait-ms", "200") as server:
        hanging = threading.Thread(target=lambda: server.post("/score", "hang"))
        hanging.start()
        wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the hanging call to begin")
        refused = server.post("/score", "x")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "Too many requests" in refused.json()["message"]
        assert 0.2 <= refused.elapsed.total_seconds() < 1.0
        assert server.get("/v2/health/ready").status_code == 200, "busy is not stuck"
        hanging.join(10)


@pytest.mark.alone
def test_a_script_that_takes_its_process_down_cuts_only_its_own_request(tmp_path: Path) -> None:
    file = script(tmp_path, "import os\ndef init(): ...\ndef run(data):\n  if data == 'die': os._exit(9)\n  return os.getpid()\n")
    with ScoringServer(tmp_path, "--script", file) as server:
        first = server.post("/score", "x").json()
        died = server.post("/score", "die")
        assert died.status_code == 502
        assert "The scoring script's process ended while it scored this request (exit code 9)" in died.json()["message"]
        answer = server.post("/score", "x")
        assert answer.status_code == 200
        assert answer.json() != first
        assert answer.elapsed.total_seconds() < 1.0


def test_a_reserved_name_is_refused_with_its_path(tmp_path: Path) -> None:
    file = script(tmp_path, "def init(): ...\ndef run(data): ...")
    (file.parent / "runtime.py").touch()
    with ScoringServer(tmp_path, "--script", file, wait=False) as server:
        wait_for(lambda: not server.process.is_running, what="the server to give up")
        assert server.exit_code == 3
        assert f"{file.parent / 'runtime.py'} has a reserved name" in server.process.log_text()


def test_a_term_signal_waits_for_run(tmp_path: Path) -> None:
    file = script(
        tmp_path,
        """
        import os, threading
        def init(): ...
        def run(data):
            # Long enough for the signal to arrive while it runs.
            threading.Event().wait(1.0)
            return json_text(data)
        def json_text(data): return {"got": data}
        """,
    )
    with ScoringServer(tmp_path, "--script", file) as server:
        answers: list[object] = []
        caller = threading.Thread(target=lambda: answers.append(server.post("/score", "last").json()))
        caller.start()
        wait_for(lambda: server.metric("hedgerow_in_flight") == 1, what="the call to begin")
        server.process.send(signal.SIGTERM)
        caller.join(10)
        assert answers == [{"got": "last"}]
        wait_for(lambda: not server.process.is_running, what="the server to end")
        assert server.exit_code == 0
