"""``azmlinfsrv``: its flags, variables, config file, second port, and its exit codes."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.azmlinfsrv_server import Azmlinfsrv
from tests.scoring_server import script
from tests.waiting import wait_for

FACTS = """
    import os, sys
    import beside_root, beside_source

    def init():
        pass

    def run(data):
        return {
            "cwd": os.getcwd(), "path": sys.path[:3], "pid": os.getpid(), "model": os.environ["AZUREML_MODEL_DIR"],
            "root": os.environ["AML_APP_ROOT"], "read": open("model/x").read(), "module": __name__,
        }
"""


def app(root: Path) -> Path:
    """An app as Azure ML lays it out: a root, a source directory, a script in a folder of its own."""
    for folder in ("model", "src", "scripts"):
        (root / folder).mkdir(parents=True)
    (root / "model" / "x").write_text("the model")
    (root / "beside_root.py").touch()
    (root / "src" / "beside_source.py").touch()
    return script(root, FACTS).rename(root / "scripts" / "score.py")


def test_the_app_root_is_the_working_folder_and_comes_first_on_the_path(tmp_path: Path) -> None:
    root = tmp_path / "app"
    app(root)
    env = {"AML_APP_ROOT": str(root), "AZUREML_SOURCE_DIRECTORY": "src", "AZUREML_ENTRY_SCRIPT": "scripts/score.py"}
    with Azmlinfsrv(tmp_path / "elsewhere", "--model_dir", root / "model", env=env) as server:
        facts = server.post("/score", "").json()
        assert facts["path"] == [str(root), str(root / "src"), str(root / "scripts")]
        assert (facts["cwd"], facts["root"], facts["read"]) == (str(root), str(root), "the model")
        assert (facts["model"], facts["module"]) == (str(root / "model"), "entry_module")
        assert server.get("/").headers["x-ms-server-version"].startswith("azmlinfsrv/")


def test_without_a_root_the_folder_it_was_started_in_is_the_root(tmp_path: Path) -> None:
    file = app(tmp_path)
    env = {"AZUREML_SOURCE_DIRECTORY": "src", "SERVER_VERSION_LOG_RESPONSE_ENABLED": "no"}
    with Azmlinfsrv(tmp_path, "--entry_script", file.relative_to(tmp_path), "--model_dir", "model", env=env) as server:
        answer = server.post("/score", "")
        assert (answer.json()["cwd"], answer.json()["model"]) == (str(tmp_path), str(tmp_path / "model"))
        assert "x-ms-server-version" not in answer.headers
        server.wait_for_log("POST /score 200 ")


def test_a_config_file_says_what_neither_flags_nor_variables_say(tmp_path: Path) -> None:
    script(tmp_path, "import threading\ndef init(): ...\ndef run(data): threading.Event().wait()\n")
    config = {
        "AZUREML_ENTRY_SCRIPT": "source/score.py",
        "SCORING_TIMEOUT_MS": 60_000,
        "SERVICE_NAME": "from the file",
        "WORKER_TIMEOUT": 1,
        "AML_APP_INSIGHTS_ENABLED": True,
        "AZUREML_DEBUG_PORT": 5678,
        "NO_SUCH_KEY": 1,
    }
    (tmp_path / "my.json").write_text(json.dumps(config))
    env = {"SERVICE_NAME": "from the environment"}
    with Azmlinfsrv(tmp_path, "--config_file", "my.json", env=env) as server:
        assert server.get("/swagger.json").json()["info"]["title"] == "from the environment"
        assert server.post("/score", "").json() == {"message": "Scoring timeout after 1000 ms"}
        log = server.process.log_text()
    assert "my.json has keys that are not supported: NO_SUCH_KEY" in log
    assert "AML_APP_INSIGHTS_ENABLED has no effect" in log
    assert "AZUREML_DEBUG_PORT has no effect" in log


def test_a_second_port_answers_health_and_nothing_else(tmp_path: Path) -> None:
    file = script(tmp_path, "def init(): ...\ndef run(data): return data\n")
    env = {"SEPERATE_HEALTH_ENDPOINT": "true", "HEALTH_PORT": "0"}
    with Azmlinfsrv(tmp_path, "--entry_script", file, env=env) as server:
        health = urlsplit(str(server.ready["health_address"]))
        assert health.port != server.port
        answers = {}
        for path in ("/", "/score", "/metrics", "/v2"):
            connection = http.client.HTTPConnection("127.0.0.1", health.port, timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            answers[path] = (answer.status, answer.read()[:7])
            connection.close()
        assert answers.pop("/") == (200, b"Healthy")
        assert {status for status, _ in answers.values()} == {404}
        assert server.get("/").text == "Healthy", "the first port still does"
        assert server.post("/score", "x").json() == "x"


def test_cors_for_the_named_origins(tmp_path: Path) -> None:
    file = script(tmp_path, "def init(): ...\ndef run(data): return data\n")
    origins = "https://www.microsoft.com, https://*.bing.com"
    with Azmlinfsrv(tmp_path, "--entry_script", file, "--access_control_allow_origins", origins) as server:
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, x-own"}
        for origin in ("https://www.microsoft.com", "https://www.BING.com"):
            preflight = server.client.options(server.url + "/score", headers={"origin": origin, **asked})
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == origin
            assert preflight.headers["access-control-allow-methods"] == "GET, POST"
            assert preflight.headers["access-control-allow-headers"] == "content-type, x-own"
            answer = server.post("/score", "x", headers={"origin": origin})
            assert (answer.json(), answer.headers["access-control-allow-origin"]) == ("x", origin)
            assert answer.headers["vary"] == "Origin"
        for headers in ({"origin": "https://evil.com"}, {"origin": "https://evil.com/.bing.com"}, {}):
            assert "access-control-allow-origin" not in server.post("/score", "x", headers=headers).headers


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 1, "--entry_script"),
        (["--port", "0", "--entry_script", "x.py"], 1, "'0' is no port"),
        (["--worker_count", "none", "--entry_script", "x.py"], 1, "no number of workers"),
        (["--nonsense"], 1, "--nonsense"),
        (["--entry_script", "missing.py"], 3, "there is no such file"),
        (["--config_file", "missing.json"], 3, "missing.json cannot be used"),
        (["--help"], 0, "--access_control_allow_origins"),
    ],
)
def test_exit_codes(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    argv = [sys.executable, "-P", "-m", "runtime.azmlinfsrv", *arguments]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, says in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_that_fails_at_start_ends_with_code_3(tmp_path: Path) -> None:
    file = script(tmp_path, "def init(): raise OSError('no model')\ndef run(data): ...\n")
    with Azmlinfsrv(tmp_path, "--entry_script", file, wait=False) as server:
        wait_for(lambda: not server.process.is_running, what="the server to give up")
        assert server.exit_code == 3
        assert "failed in init(): OSError: no model" in server.process.log_text()


def test_main_py_in_the_app_root_is_the_script_when_none_is_named(tmp_path: Path) -> None:
    root = tmp_path / "app"
    root.mkdir()
    (root / "main.py").write_text("def init(): ...\ndef run(data): return 'main'\n")
    (root / "empty.json").write_text("{}")
    arguments = ["--config_file", root / "empty.json"]
    with Azmlinfsrv(tmp_path / "elsewhere", *arguments, env={"AML_APP_ROOT": str(root)}) as server:
        assert server.post("/score", "").json() == "main"
