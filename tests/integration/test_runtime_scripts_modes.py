"""What scripts may ask for beyond a text: schemas, the request itself, streams, threads, logs, files beside them."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.scoring_server import ScoringServer, script
from tests.waiting import wait_for

OLD_NAMES = """
    import json
    import numpy as np
    from azureml.contrib.services.aml_request import AMLRequest, rawhttp
    from azureml.contrib.services.aml_response import AMLResponse
    from azureml.core.model import Model

    def init():
        global path
        path = Model.get_model_path("iris")

    @rawhttp
    def run(request: AMLRequest):
        assert isinstance(request, AMLRequest)
        if request.method == "GET":
            return AMLResponse(f"GET {request.full_path} of {path}", 200)
        return AMLResponse(np.frombuffer(request.get_data(False), "u1").tolist(), 200, json_str=True)
"""


def test_the_names_that_old_scripts_import_are_there(tmp_path: Path) -> None:
    model = tmp_path / "azureml-models" / "iris" / "3"
    model.mkdir(parents=True)
    (model / "iris.pkl").touch()
    with ScoringServer(tmp_path, "--script", script(tmp_path, OLD_NAMES), "--model-dir", model) as server:
        assert server.post("/score", b"\x01\xfe").json() == [1, 254]
        assert server.get("/score?q=1").text == f"GET /score?q=1 of {model / 'iris.pkl'}"


ENCODED = """
    import gzip
    from azureml_inference_server_http.api.aml_request import rawhttp
    from azureml_inference_server_http.api.aml_response import AMLResponse

    def init(): ...

    @rawhttp
    def run(request):
        named, body = request.headers.get("content-encoding", ""), request.data
        assert request.content_length == len(body)
        text = named.encode() + b":" + (gzip.decompress(body) if named else body)
        packed = gzip.compress(text * 1000)
        return AMLResponse(packed, 200, {"Content-Encoding": "gzip"})
"""


def test_a_raw_script_gets_and_gives_packed_bodies_itself(tmp_path: Path) -> None:
    """As under azmlinfsrv, whose Flask hands on what came. Nothing is unpacked for it, nor its own packing packed again."""
    with ScoringServer(tmp_path, "--script", script(tmp_path, ENCODED)) as server:
        for headers, text in (({"content-encoding": "gzip"}, "gzip:abc"), ({}, ":abc")):
            body = gzip.compress(b"abc") if headers else b"abc"
            answer = server.post("/score", body, headers={**headers, "accept-encoding": "gzip"})
            assert answer.headers["content-encoding"] == "gzip"
            assert answer.text == text * 1000


def test_other_scripts_get_packed_bodies_unpacked(tmp_path: Path) -> None:
    """Under azmlinfsrv they fail: it reads the packed bytes as UTF-8."""
    with ScoringServer(tmp_path, "--script", script(tmp_path, "def init(): ...\ndef run(data): return data")) as server:
        assert server.post("/score", gzip.compress(b"abc"), headers={"content-encoding": "gzip"}).json() == "abc"


def test_pictures_and_archives_are_not_packed_again(tmp_path: Path) -> None:
    body = """
        from azureml_inference_server_http.api.aml_response import AMLResponse
        def init(): ...
        def run(data): return AMLResponse(b"\\0" * 50_000, 200, {"Content-Type": data})
    """
    with ScoringServer(tmp_path, "--script", script(tmp_path, body)) as server:
        for kind, encoding in (("image/png", None), ("application/zip", None), ("image/svg+xml", "gzip"), ("text/plain", "gzip")):
            answer = server.post("/score", kind, headers={"accept-encoding": "gzip"})
            assert (answer.headers["content-type"], answer.headers.get("content-encoding")) == (kind, encoding)
            assert answer.content == bytes(50_000)


STREAMING = """
    import pathlib, time
    from flask import Response, request, stream_with_context
    from azureml_inference_server_http.api.aml_response import AMLResponse

    def init():
        pass

    def parts(data):
        yield "first\\n"
        # The caller makes this file once it has the first part.
        for _ in range(1000):
            if pathlib.Path(data).exists():
                break
            time.sleep(0.01)
        yield "second\\n"
        if data.endswith("breaks"):
            raise ValueError("in the middle")

    def run(data):
        if data.isdecimal():
            return Response("body", int(data), {"X-Way": "whole"}) if len(data) == 3 else Response(parts("/"), int(data[1:]))
        if data == "context":
            return Response(stream_with_context(request.path + str(n) for n in range(3)), content_type="text/plain")
        answer = AMLResponse(parts(data), 206, {"Content-Type": "text/x-parts", "X-Own": "yes"})
        answer.call_on_close(lambda: pathlib.Path(data + ".closed").touch())
        return answer
"""


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    folder = tmp_path_factory.mktemp("streaming")
    with ScoringServer(folder, "--script", script(folder, STREAMING)) as server:
        yield server


def test_a_generator_is_sent_part_by_part(streaming: ScoringServer, tmp_path: Path) -> None:
    signal = tmp_path / "signal"
    with streaming.client.stream("POST", streaming.url + "/score", content=str(signal)) as answer:
        assert (answer.status_code, answer.headers["content-type"], answer.headers["x-own"]) == (206, "text/x-parts", "yes")
        assert answer.headers["x-ms-run-function-failed"] == "False"
        assert float(answer.headers["x-ms-run-fn-exec-ms"]) >= 0
        parts = answer.iter_text()
        assert next(parts) == "first\n", "before the second exists"
        signal.touch()
        assert "".join(parts) == "second\n"
    wait_for(signal.with_name("signal.closed").exists, what="the response's own end")


def test_a_generator_that_raises_cuts_the_answer_so_that_the_caller_notices(streaming: ScoringServer, tmp_path: Path) -> None:
    signal = tmp_path / "breaks"
    signal.touch()
    with pytest.raises(httpx.RemoteProtocolError):
        streaming.post("/score", str(signal))
    streaming.wait_for_log("ValueError: in the middle")
    assert streaming.post("/score", "context").text == "/score0/score1/score2", "the process goes on"


@pytest.mark.parametrize(
    ("status", "answered"), [("418", 418), ("204", 204), ("0204", 204), ("304", 304), ("100", 500), ("999", 500)]
)
def test_only_answers_are_sent_as_answers(streaming: ScoringServer, status: str, answered: int) -> None:
    with httpx.Client(trust_env=False) as client:
        # On one connection: an answer that is framed wrongly would spoil the next.
        answer = client.post(streaming.url + "/score", content=status)
        assert answer.status_code == answered
        assert (answer.content == b"") == (answered in (204, 304))
        assert client.post(streaming.url + "/score", content="context").text == "/score0/score1/score2"


def test_a_caller_that_leaves_in_the_middle_of_a_stream_costs_nobody_else(streaming: ScoringServer, tmp_path: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", streaming.port, timeout=10)
    connection.request("POST", "/score", str(tmp_path / "left"))
    assert connection.getresponse().readline() == b"first\n"
    connection.close()
    (tmp_path / "left").touch()
    assert streaming.post("/score", "context").status_code == 200


def test_flask_may_be_imported_inside_run(tmp_path: Path) -> None:
    file = script(
        tmp_path, "def init(): ...\ndef run(data):\n  from flask import jsonify, request\n  return jsonify(q=request.args['q'])\n"
    )
    with ScoringServer(tmp_path, "--script", file, "--standbys", "0") as server:
        assert server.post("/score?q=1", "x").json() == {"q": "1"}


THREADS = """
    import threading
    thread_safe = True
    together = threading.Barrier(4)

    def init():
        pass

    def run(data):
        # Passes only when four calls are inside at the same time.
        together.wait(10)
        return threading.current_thread() is threading.main_thread()
"""


def test_a_thread_safe_script_gets_several_calls_at_once_in_one_process(tmp_path: Path) -> None:
    file = script(tmp_path, THREADS)
    with ScoringServer(tmp_path, "--script", file, "--standbys", "0", "--max-concurrent", "4", "--timeout-ms", "15000") as server:
        answers: list[int] = []
        callers = [threading.Thread(target=lambda: answers.append(server.post("/score", "x").status_code)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(20)
        assert answers == [200] * 4


LOUD = """
    import logging, sys
    logging.info("at import")
    print("at import")
    mine = logging.getLogger("mine.own")

    def init():
        mine.warning("two\\nlines")

    def run(data):
        print("several", "things", 1, sep="-")
        print("elsewhere", file=sys.stderr)
        if data == "configure":
            logging.basicConfig(format="OWN %(levelname)s %(message)s")
            logging.getLogger("mine.own").info("configured")
        return None
"""
_LINE = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,]\d{3} %s \[\d+\] %s - %s$"


def test_prints_and_loggers_of_a_script_are_lines_of_the_log(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--script", script(tmp_path, LOUD), "--standbys", "0") as server:
        server.post("/score", "")
        server.post("/score", "configure")
        server.wait_for_log("OWN INFO configured")
        log = server.process.log_text()
    for level, name, text in (
        ("I", "root", "at import"),
        ("I", r"azmlinfsrv\.print", "at import"),
        ("W", r"mine\.own", r"two\\nlines"),
        ("I", r"azmlinfsrv\.print", "several-things-1"),
    ):
        assert re.search(_LINE % (level, name, text), log, re.MULTILINE), (name, text, log)
    assert re.search(r"^elsewhere$", log, re.MULTILINE)


def test_the_log_level_is_the_scripts_too(tmp_path: Path) -> None:
    file = script(tmp_path, "import logging\ndef init(): logging.info('quiet')\ndef run(data): logging.error('loud')\n")
    with ScoringServer(tmp_path, "--script", file, "--log-level", "error", "--log-format", "json") as server:
        server.post("/score", "")
        server.wait_for_log("loud")
        log = server.process.log_text()
    assert "quiet" not in log
    [line] = [line for line in log.splitlines() if "loud" in line]
    assert json.loads(line)["level"] == "error"


_CLASSES = "azureml_inference_server_http.log_config"
_HANDLER = {"class": "logging.StreamHandler", "formatter": "own", "filters": ["probes"], "stream": "ext://sys.stdout"}
LOGGING_FILE = {
    "version": 1,
    "formatters": {"own": {"class": f"{_CLASSES}.AMLLogFormatter", "format": "OWN %(name)s %(message)s"}},
    "filters": {"probes": {"()": f"{_CLASSES}.RootAccessFilter"}},
    "handlers": {"out": _HANDLER},
    "loggers": {"azmlinfsrv": {"level": "INFO", "handlers": ["out"], "propagate": False}},
}


def test_a_users_logging_json_is_applied(tmp_path: Path) -> None:
    file = script(tmp_path, "def init(): print('hello')\ndef run(data): 1 / 0\n")
    (file.parent / "logging.json").write_text(json.dumps(LOGGING_FILE))
    with ScoringServer(tmp_path, "--script", file) as server:
        server.wait_for_log("OWN azmlinfsrv.print hello")
        server.post("/score", "")
        server.wait_for_log("ZeroDivisionError")


def test_a_logging_json_that_cannot_be_applied_is_said(tmp_path: Path) -> None:
    file = script(tmp_path, "def init(): ...\ndef run(data): ...\n")
    (file.parent / "logging.json").write_text('{"version": 1, "handlers": {"a": {"class": "no.such.Handler"}}}')
    with ScoringServer(tmp_path, "--script", file, wait=False) as server:
        wait_for(lambda: not server.process.is_running, what="the server to give up")
        assert server.exit_code == 3
        assert "logging.json cannot be applied: Unable to configure handler 'a'" in server.process.log_text()


def test_an_answer_without_a_form_in_json_is_told_from_a_run_that_raises(tmp_path: Path) -> None:
    source = """
        import json
        import numpy as np
        def init(): ...
        def run(data):
            return {"array": np.arange(3), "number": np.float32(1), "set": {1}}[json.loads(data)]
    """
    with ScoringServer(tmp_path, "--script", script(tmp_path, source)) as server:
        for which in ("array", "number", "set"):
            assert server.post("/score", json.dumps(which).encode()).status_code == 500
        assert server.post("/score", b'"else"').status_code == 500
        server.wait_for_log("run() raised KeyError")
        log = server.process.log_text()
    for kind in ("ndarray", "float32", "set"):
        assert f"run() returned what JSON has no form for: Object of type {kind} is not JSON serializable. Return what" in log
    assert "raised TypeError" not in log
    assert "json/encoder.py" not in log


def test_a_failing_init_shows_the_model_folder(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "deep").mkdir(parents=True)
    (model / "deep" / "weights.bin").touch()
    for number in range(250):
        (model / f"part-{number:03}").touch()
    file = script(tmp_path, "def init(): open('model/missing')\ndef run(data): ...\n")
    with ScoringServer(tmp_path, "--script", file, "--model-dir", model, wait=False) as server:
        wait_for(lambda: not server.process.is_running, what="the server to give up")
        log = server.process.log_text()
    assert "Model Directory Contents:" in log
    assert "        weights.bin" in log
    assert "Output Truncated. First 200 lines shown." in log
    assert "part-100" in log
    assert "part-240" not in log


SWAGGER = """
    import json
    from inference_schema.schema_decorators import input_schema, output_schema
    from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

    def init():
        # As the drivers of Azure's designer do.
        json.dump({"mine": 2}, open("swagger.json", "w"))

    @output_schema(StandardPythonParameterType(2**70))
    @input_schema("data", StandardPythonParameterType([1, "two"]))
    def run(data):
        return data
"""


def test_swagger_files_win_and_other_versions_come_from_the_decorators(tmp_path: Path) -> None:
    file = script(tmp_path, SWAGGER)
    (file.parent / "swagger3.1.json").write_text('{"mine": 3.1}')
    (file.parent / "swagger3.json").write_text("no json")
    env = {"SERVICE_NAME": "My service", "SERVICE_VERSION": "7.1", "SERVICE_PATH_PREFIX": "/api/v1/"}
    with ScoringServer(tmp_path, "--script", file, env=env) as server:
        assert server.get("/swagger.json").json() == {"mine": 2}
        assert server.get("/swagger.json?version=3.1").json() == {"mine": 3.1}
        made = server.get("/swagger.json?version=3").json()
        assert made["info"] == {"title": "My service", "version": "7.1", "description": "Scoring service My service"}
        assert made["components"]["schemas"]["ServiceInput"]["example"] == {"data": [1, "two"]}
        assert made["components"]["schemas"]["ServiceOutput"]["example"] == 2**70
        assert "/api/v1/score" in made["paths"]
        server.wait_for_log("swagger3.json is not used")


def test_wrong_bodies_for_a_schema_never_reach_run(tmp_path: Path) -> None:
    file = script(
        tmp_path,
        """
        from inference_schema.schema_decorators import input_schema
        from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
        calls = 0
        def init(): ...
        @input_schema("x", StandardPythonParameterType(1.5))
        def run(x):
            global calls
            calls += 1
            return calls
        """,
    )
    with ScoringServer(tmp_path, "--script", file) as server:
        json_type = {"content-type": "application/json"}
        deep = b"[" * 100_000 + b"]" * 100_000
        for body in (b"", b"{", b"[]", b"null", b"\xff", b'{"y": 1}', deep):
            answer = server.post("/score", body, headers=json_type)
            assert (answer.status_code, list(answer.json())) == (400, ["message"]), body[:20]
            assert answer.headers["x-ms-run-function-failed"] == "False"
            assert "x-ms-run-fn-exec-ms" not in answer.headers
        assert server.score({"x": 2}, headers=json_type).json() == 1
        assert server.score({"x": "no"}, headers=json_type).status_code == 500


def test_an_images_variables_set_the_server_as_they_did_in_azure_ml(tmp_path: Path) -> None:
    source = tmp_path / "image" / "source"
    source.mkdir(parents=True)
    (source / "score.py").write_text(
        "import os, threading\ndef init(): ...\ndef run(data): return os.environ['OWN'] if data else threading.Event().wait()\n"
    )
    variables = {"SCORING_TIMEOUT_MS": "300", "SERVICE_NAME": "from the image", "OWN": "script's"}
    config = {"models": [], "script": "source/score.py", "source": "source", "variables": variables}
    (tmp_path / "image" / "hedgerow.json").write_text(json.dumps(config))
    with ScoringServer(tmp_path, "--image", tmp_path / "image", env={"SERVICE_NAME": "from the environment"}) as server:
        assert server.post("/score", "x").json() == "script's"
        assert server.post("/score", "").json() == {"message": "Scoring timeout after 300 ms"}
        assert server.get("/swagger.json").json()["info"]["title"] == "from the environment"
