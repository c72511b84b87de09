"""Models that come and go while the server works: Triton's repository extension, under load and after accidents."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from onnx import TensorProto, helper

from tests import scoring_models as models
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for


def adds(number: float) -> bytes:
    """x f32[N,2] -> y: x + ``number``, so that an answer says which model gave it."""
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [number])
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "g", [shape], [result], [constant])
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(document.SerializeToString())


def put(root: Path, model: str, version: int, content: bytes, config: str = "") -> None:
    place = root / model / str(version)
    place.mkdir(parents=True, exist_ok=True)
    # A model is replaced as a whole, as by a sync tool.
    (place / "new").write_bytes(content)
    (place / "new").rename(place / "model.onnx")
    if config:
        (root / model / "config.pbtxt").write_text(config)


BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}]}).encode()


def answer(server: ScoringServer, model: str, version: int | None = None) -> float:
    path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
    response = server.post(path, BODY)
    assert response.status_code == 200, response.text
    return float(response.json()["outputs"][0]["data"][0])


def change(server: ScoringServer, model: str, what: str, **parameters: object) -> httpx.Response:
    body = json.dumps({"parameters": parameters}) if parameters else b""
    return server.post(f"/v2/repository/models/{model}/{what}", body)


def index(server: ScoringServer, **asked: object) -> list[tuple[str, str, str, str]]:
    entries: list[dict[str, str]] = server.post("/v2/repository/index", json.dumps(asked) if asked else b"").json()
    return [(entry["name"], entry["version"], entry["state"], entry["reason"]) for entry in entries]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    for version in (1, 2):
        put(place, "adder", version, adds(version))
    put(place, "other", 1, adds(100))
    return place


class Load:
    """Clients that ask one model without pause; every answer is checked against those that are right, and counted."""

    def __init__(self, server: ScoringServer, model: str, right: set[float], clients: int = 4) -> None:
        self.ends: Counter[object] = Counter()
        self._url = f"{server.url}/v2/models/{model}/infer"
        self._right = right
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def more(self, answers: int = 50) -> None:
        before = self.ends.total()
        wait_for(lambda: self.ends.total() >= before + answers, timeout_s=30, what=f"{answers} more answers")

    @property
    def failures(self) -> dict[object, int]:
        return {end: count for end, count in self.ends.items() if end not in self._right}

    def _client(self) -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            while not self._stop.is_set():
                try:
                    response = client.post(self._url, content=BODY)
                    found: object = response.json()["outputs"][0]["data"][0] if response.is_success else response.text
                except httpx.HTTPError as problem:
                    found = repr(problem)
                self.ends[found] += 1


def test_what_is_served_and_what_the_index_says(root: Path, tmp_path: Path) -> None:
    arguments = ("--model-repository", root, "--model-control", "explicit", "--load-models", "adder")
    with ScoringServer(tmp_path / "s", *arguments) as server:
        assert answer(server, "adder") == 2.0, "the newest version, by Triton's policy"
        assert index(server) == [("adder", "2", "READY", ""), ("other", "", "UNAVAILABLE", "not loaded")]
        assert index(server, ready=True) == [("adder", "2", "READY", "")]
        assert "model_repository" in server.get("/v2").json()["extensions"]
        refused = server.post("/v2/models/other/infer", BODY)
        assert (refused.status_code, "no model 'other'" in refused.json()["error"]) == (404, True)
        assert change(server, "other", "load").status_code == 200
        assert answer(server, "other") == 100.0
        (root / "adder" / "config.pbtxt").write_text("version_policy: { all {} }")
        assert change(server, "adder", "load").status_code == 200
        assert (answer(server, "adder", 1), answer(server, "adder", 2), answer(server, "adder")) == (1.0, 2.0, 2.0)
        assert server.get("/v2/models/adder").json()["versions"] == ["1", "2"]
        assert change(server, "adder", "unload", unload_dependents=True).status_code == 200
        assert server.get("/v2/models/adder/ready").status_code == 404
        assert ("adder", "1", "UNAVAILABLE", "unloaded") in index(server)
        assert change(server, "adder", "unload").status_code == 200, "what is not loaded is unloaded"


def test_one_configuration_for_one_load(root: Path, tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "s", "--model-repository", root, "--model-control", "explicit") as server:
        only_first = json.dumps({"version_policy": {"specific": {"versions": [1]}}, "max_batch_size": 4})
        assert change(server, "adder", "load", config=only_first).status_code == 200
        assert answer(server, "adder") == 1.0
        assert server.get("/v2/models/adder/config").json()["max_batch_size"] == 4
        assert change(server, "adder", "load").status_code == 200
        assert answer(server, "adder") == 2.0, "the next load reads the folder again"


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("models/none/load", b"", 404, "no model 'none'"),
        ("models/none/unload", b"", 404, "no model 'none'"),
        ("models/../load", b"", 404, ""),
        ("models/%2e%2e/load", b"", 404, "no model '..'"),
        ("models/broken/load", b"", 400, "cannot be loaded"),
        ("models/adder/load", b"{", 400, "truncated"),
        ("models/adder/load", b"[]", 400, "Expected `object`"),
        ("models/adder/load", b"[" * 100_000, 400, "request body"),
        ("models/adder/load", b'{"parameters": {"config": 5}}', 400, "'config'"),
        ("models/adder/load", b'{"parameters": {"config": "{"}}', 400, "configuration of model adder"),
        ("models/adder/load", b'{"parameters": {"colour": "red"}}', 400, "'colour'"),
        ("models/adder/load", b'{"parameters": {"file:1/model.onnx": "AAAA"}}', 400, "is not allowed"),
        ("models/adder/unload", b"\xff", 400, "request body"),
        ("index", b'{"ready": "yes"}', 400, "Expected `bool`"),
    ],
)
def test_wrong_requests_change_nothing(repository_server: ScoringServer, path: str, body: bytes, status: int, says: str) -> None:
    before = index(repository_server, ready=True)
    refused = repository_server.post(f"/v2/repository/{path}", body)
    assert refused.status_code == status, refused.text
    assert list(refused.json()) == ["error"]
    assert says in refused.json()["error"]
    assert index(repository_server, ready=True) == before
    assert answer(repository_server, "adder") == 2.0


@pytest.fixture(scope="module")
def repository_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("wrong") / "repository"
    put(place, "adder", 2, adds(2))
    put(place, "broken", 1, b"this is no model")
    arguments = ("--model-repository", place, "--model-control", "explicit", "--load-models", "adder")
    with ScoringServer(place.parent / "s", *arguments) as server:
        yield server


def test_changes_only_where_the_settings_allow_them(root: Path, tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "fixed", "--model-repository", root) as server:
        assert "model_repository" not in server.get("/v2").json()["extensions"]
        for what in ("load", "unload"):
            refused = change(server, "adder", what)
            assert (refused.status_code, "--model-control explicit" in refused.json()["error"]) == (400, True)
        assert answer(server, "adder") == 2.0
    with ScoringServer(tmp_path / "single", "--model", models.echo()) as server:
        assert change(server, "echo", "unload").status_code == 400
        assert index(server) == [("echo", "1", "READY", "")]


def test_not_one_request_fails_while_its_model_is_loaded_again_and_again(root: Path, tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "s", "--model-repository", root, "--model-control", "explicit") as server:
        with Load(server, "adder", {2.0, 3.0, 4.0, 5.0}) as load:
            for version in (3, 4, 5):
                put(root, "adder", version, adds(version))
                assert change(server, "adder", "load").status_code == 200
                load.more()
                assert change(server, "other", "unload").status_code == 200
                assert change(server, "other", "load").status_code == 200
            # A load that fails leaves what is served.
            put(root, "adder", 6, b"no model")
            assert change(server, "adder", "load").status_code == 400
            load.more()
        assert load.failures == {}, f"of {load.ends.total()}"
        assert answer(server, "adder") == 5.0
        states = {(name, version): state for name, version, state, _ in index(server)}
        assert (states["adder", "5"], states["adder", "6"]) == ("READY", "UNAVAILABLE")
        stats = server.get("/v2/models/adder/stats").json()["model_stats"]
        assert [one["version"] for one in stats] == ["5"]
        assert stats[0]["inference_stats"]["success"]["count"] > 0
        assert server.metric('nv_inference_request_success{model="adder",version="2"}') > 0, "what was counted stays"


def test_requests_under_way_survive_an_unload(root: Path, tmp_path: Path) -> None:
    place = root / "endless" / "1"
    place.mkdir(parents=True)
    shutil.copy(models.endless(), place / "model.onnx")
    arguments = ("--model-repository", root, "--model-control", "explicit", "--max-concurrent", "1", "--queue-wait-ms", "20000")
    with ScoringServer(tmp_path / "s", *arguments) as server:
        answers: list[httpx.Response] = []
        body = {"inputs": [{"name": "rounds", "datatype": "INT64", "shape": [], "data": [300_000]}]}
        threads = [threading.Thread(target=lambda: answers.append(server.infer("endless", body))) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.metric("hedgerow_in_flight") == 3, what="three requests inside, two of them waiting")
        assert change(server, "endless", "unload").status_code == 200
        assert server.infer("endless", body).status_code == 404, "new ones find nothing"
        for thread in threads:
            thread.join(60)
        assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_files_come_with_the_request_where_that_is_allowed(root: Path, tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "s", "--model-repository", root, "--model-control", "uploads") as server:
        sent = base64.b64encode(adds(7)).decode()
        assert change(server, "fresh", "load", **{"file:3/model.onnx": sent}).status_code == 200
        assert answer(server, "fresh", 3) == 7.0
        assert change(server, "adder", "load", config="{}", **{"file:1/model.onnx": sent}).status_code == 200
        assert answer(server, "adder") == 7.0, "the files sent win over those in the folder"
        for parameter, content in {"file:1/../../x": sent, "file:1/model.onnx": "?"}.items():
            refused = change(server, "evil", "load", **{parameter: content})
            assert (refused.status_code, "The files sent for model evil" in refused.json()["error"]) == (400, True)
        assert change(server, "adder", "load").status_code == 200
        assert answer(server, "adder") == 2.0
        assert change(server, "fresh", "unload").status_code == 200
        assert change(server, "fresh", "load").status_code == 404, "what was sent is gone with the model"


def test_a_worker_that_takes_over_serves_what_was_asked_for_last(root: Path, tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "s", "--model-repository", root, "--model-control", "uploads") as server:
        change(server, "other", "unload").raise_for_status()
        change(server, "fresh", "load", **{"file:1/model.onnx": base64.b64encode(adds(7)).decode()}).raise_for_status()
        put(root, "adder", 9, b"no model: whoever starts with this would fail")
        (killed,) = server.workers()
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: killed not in server.workers() and server.metric("hedgerow_workers_ready") == 1, what="a new worker")
        assert answer(server, "fresh") == 7.0
        assert index(server, ready=True) == [("fresh", "1", "READY", "")]
        assert server.post("/v2/models/other/infer", BODY).status_code == 404, "it stays unloaded"
        put(root, "adder", 9, adds(9))
        change(server, "adder", "load").raise_for_status()
        before = server.workers()
        server.process.send(signal.SIGHUP)
        wait_for(lambda: not set(before) & set(server.workers()), timeout_s=20, what="the reloaded worker alone")
        assert (answer(server, "adder"), answer(server, "fresh")) == (9.0, 7.0)


def test_nothing_asked_for_is_something_asked_for(root: Path, tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "s", "--model-repository", root, "--model-control", "explicit") as server:
        for name in ("adder", "other"):
            change(server, name, "unload").raise_for_status()
        (killed,) = server.workers()
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: killed not in server.workers() and server.metric("hedgerow_workers_ready") == 1, what="a new worker")
        assert index(server, ready=True) == []
        change(server, "other", "load").raise_for_status()
        assert [name for name, *_ in index(server, ready=True)] == ["other"]
        assert server.score([[0, 0]]).json() == [[100.0, 100.0]], "the one model that is there is what /score means"
