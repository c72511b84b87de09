"""A bare ONNX file served: both contracts, an OpenAPI document whose example scores, a page for people; traps of real models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openapi_spec_validator import validate

from runtime.models.onnx_model import OnnxModel
from tests import oip_models, real_models
from tests import scoring_models as models
from tests.scoring_server import ScoringServer


@contextmanager
def served(file: Path, folder: Path, *arguments: object) -> Iterator[ScoringServer]:
    with ScoringServer(folder, "--model", file, "--name", "m", *arguments) as server:
        yield server


def openapi(server: ScoringServer, version: str = "3.1") -> dict[str, Any]:
    document: dict[str, Any] = server.get(f"/swagger.json?version={version}").json()
    return document


def schemas(server: ScoringServer) -> tuple[dict[str, Any], dict[str, Any]]:
    found = openapi(server)["components"]["schemas"]
    return found["ServiceInput"], found["ServiceOutput"]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def page(server: ScoringServer) -> _Reader:
    answer = server.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    reader = _Reader()
    reader.feed(answer.text)
    assert "script" not in reader.tags
    return reader


SMALL = [models.iris, models.iris_with_maps, models.echo, models.echo_text, models.many_kinds, models.fixed_batch, models.endless]
SMALL += [models.no_inputs, models.replaceable, models.keeps_state, models.odd_axes, models.any_rank, models.across_rows]


@pytest.mark.parametrize("build", SMALL, ids=lambda build: build.__name__)
def test_the_documents_example_scores_on_both_contracts_and_answers_what_it_says(build: Any, tmp_path: Path) -> None:
    with served(build(), tmp_path) as server:
        for version in ("2", "3", "3.1"):
            validate(openapi(server, version))
        takes, answers = schemas(server)
        answer = server.score(takes["example"])
        assert answer.status_code == 200, answer.text
        assert answer.json() == answers["example"]
        assert "00000" not in json.dumps(takes["example"]), "numbers as people write them"
        # The page shows the same call, and one of the other contract; both work as they stand.
        commands = re.findall(
            r"curl (\S+) -H 'content-type: application/json' -d '(.*?)'(?=curl|What its file|$)", page(server).text
        )
        assert [address.removeprefix(server.url) for address, _ in commands] == ["/score", "/v2/models/m/infer"]
        for address, body in commands:
            told = server.post(address.removeprefix(server.url), body.replace("'\"'\"'", "'"))
            assert told.status_code == 200, told.text


def test_the_page_shows_no_call_that_would_be_refused(tmp_path: Path) -> None:
    # FP16 has no form in the Open Inference Protocol's JSON.
    with served(oip_models.every_type(), tmp_path) as server:
        takes, _ = schemas(server)
        assert server.score(takes["example"]).status_code == 200
        text = page(server).text
        assert f"curl {server.url}/score" in text
        assert "curl " + server.url + "/v2/models/m/infer" not in text
        assert "FP16 has no form in JSON" in text


@pytest.mark.parametrize("which", real_models.ALL, ids=real_models.name_of)
def test_real_models_are_served_with_an_example_that_scores(which: tuple[str, str], tmp_path: Path) -> None:
    file = real_models.real_model(which)
    with served(file, tmp_path) as server:
        validate(openapi(server))
        takes, answers = schemas(server)
        assert "An example" in page(server).text
        if "example" not in takes:
            assert "numpy.zeros((1, 3, 224, 224), 'float32')" in takes["description"]
            return
        answer = server.score(takes["example"])
        assert answer.status_code == 200, answer.text
        if "example" in answers:
            assert_close(answer.json(), answers["example"])
        # The answer of the model itself, asked directly.
        values = takes["example"]
        model = OnnxModel("m", file)
        given = values["inputs"] if "inputs" in values else {model.inputs[0].name: values["data"]}
        kinds = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64}
        feeds = {spec.name: np.array(given[spec.name], kinds[spec.datatype]) for spec in model.inputs}
        told = answer.json() if len(model.outputs) > 1 else {model.outputs[0].name: answer.json()}
        for name, value in model.run(feeds).items():
            np.testing.assert_allclose(np.array(told[name]), np.asarray(value), rtol=1e-3, atol=1e-4)


def assert_close(left: object, right: object) -> None:
    if isinstance(left, dict):
        assert isinstance(right, dict)
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert_close(value, right[name])
        return
    np.testing.assert_allclose(np.array(left, float), np.array(right, float), rtol=1e-3, atol=1e-4)


def test_a_stateful_model_gets_its_state_back_and_goes_on_from_it(tmp_path: Path) -> None:
    file = real_models.real_model(real_models.SILERO)
    random = np.random.default_rng(0)
    with served(file, tmp_path) as server:
        model = OnnxModel("m", file)
        ours = theirs = np.zeros((2, 1, 128), np.float32)
        for _ in range(5):
            sound = random.standard_normal((1, 576)).astype(np.float32)
            answer = server.score({"inputs": {"input": sound.tolist(), "state": ours.tolist(), "sr": 16000}}).json()
            direct = model.run({"input": sound, "state": theirs, "sr": np.array(16000)})
            np.testing.assert_allclose(answer["output"], np.asarray(direct["output"]), atol=1e-5)
            ours, theirs = np.array(answer["stateN"], np.float32), np.asarray(direct["stateN"])
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_odd_names_and_properties_of_a_file_are_text_and_nothing_else(tmp_path: Path) -> None:
    with served(models.many_kinds(), tmp_path / "a") as server:
        assert '{"json": 1}' in page(server).text
        takes, _ = schemas(server)
        assert set(takes["properties"]["inputs"]["required"]) == {"sr/rate", 'flag:"on"', "größe.cm", '{"json": 1}'}
        assert server.score(takes["example"]).status_code == 200
        metrics = server.get("/metrics").text
        assert 'nv_inference_request_success{model="m",version="1"} 1' in metrics
    with served(models.any_rank(), tmp_path / "b") as server:
        found = page(server)
        assert '["cat", "<script>dog</script>"]' in found.text
        assert "<script>" not in server.get("/docs").text


def test_an_input_with_a_value_of_its_own_may_be_left_out_or_replaced(tmp_path: Path) -> None:
    with served(models.replaceable(), tmp_path) as server:
        assert server.score({"data": [[0, 0]]}).json() == [[1, 2]]
        assert server.score({"inputs": {"x": [[0, 0]], "b": [5, 6]}}).json() == [[5, 6]]
        given = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0, 0]}
        replaced = {"name": "b", "shape": [2], "datatype": "FP32", "data": [7, 8]}
        assert server.infer("m", {"inputs": [given]}).json()["outputs"][0]["data"] == [1, 2]
        assert server.infer("m", {"inputs": [given, replaced]}).json()["outputs"][0]["data"] == [7, 8]
        refused = server.score({"inputs": {"x": [[0, 0]], "c": [1]}})
        assert refused.status_code == 400
        assert "no input named 'c'" in refused.json()["message"]
        takes, _ = schemas(server)
        assert takes["properties"]["inputs"]["required"] == ["x"]
        assert "may be left out" in page(server).text


def test_a_model_without_inputs_answers_whoever_asks(tmp_path: Path) -> None:
    with served(models.no_inputs(), tmp_path) as server:
        assert server.post("/score").json() == [1, 2]
        assert server.score({"inputs": {}}).json() == [1, 2]
        assert server.infer("m", {"inputs": []}).json()["outputs"][0]["data"] == [1, 2]
        assert server.score({"inputs": {"x": 1}}).status_code == 400
        raw = server.post("/v2/models/m/infer", b"1234", headers={"inference-header-content-length": "0"})
        assert raw.status_code == 400


def test_no_rows_are_answered_with_no_rows(tmp_path: Path) -> None:
    with served(models.echo(), tmp_path) as server:
        assert server.score({"data": []}).json() == []
        empty = {"name": "x", "shape": [0, 2], "datatype": "FP32", "data": []}
        assert server.infer("m", {"inputs": [empty]}).json()["outputs"][0]["shape"] == [0, 2]
        assert server.score({"data": [[]]}).status_code == 400


@pytest.mark.parametrize("build", [models.fixed_batch, lambda: real_models.real_model(real_models.SWIFT)], ids=["three", "one"])
def test_a_fixed_batch_takes_its_own_size_only(build: Any, tmp_path: Path) -> None:
    file = build()
    with served(file, tmp_path) as server:
        takes, _ = schemas(server)
        body = takes["example"]
        assert server.score(body).status_code == 200
        name, rows = next(iter(body.get("inputs", body).items()))
        more = {**body, "inputs": {**body["inputs"], name: rows * 2}} if "inputs" in body else {name: rows * 2}
        answer = server.score(more)
        assert answer.status_code == 400
        assert "does not fit the model" in answer.json()["message"]


def test_a_model_that_mixes_rows_is_not_merged_however_busy_it_is(tmp_path: Path) -> None:
    file = real_models.real_model(real_models.ATSPM_HEAD)
    with served(file, tmp_path, "--batching", "on") as server:
        example = schemas(server)[0]["example"]
        alone = server.score(example).json()
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as callers:
            answers = list(callers.map(lambda _: server.score(example).json(), range(64)))
        assert all(answer == alone for answer in answers)
        # Every request had a run of its own.
        assert server.metric('nv_inference_exec_count{model="m",version="1"}') == 65


def test_settings_that_cannot_be_are_said_before_anything_starts(tmp_path: Path) -> None:
    for arguments, code, says in (
        (("--providers", "gpu"), 2, "there is no provider 'gpu'"),
        (("--providers", "cuda"), 3, "cuda: not in this build of onnxruntime"),
        (("--batching", "always"), 2, "use one of auto, on, off"),
        (("--arena", "big"), 2, "use one of on, exact, shrink, off"),
    ):
        server = ScoringServer(tmp_path / arguments[1], "--model", models.echo(), *arguments, wait=False)
        with server:
            server.wait_for_log(says)
            assert server.process._child is not None
            assert server.process._child.wait(30) == code
            assert "Traceback" not in server.process.log_text()


def test_a_model_that_is_too_new_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.stamped(99, 17), wait=False) as server:
        server.wait_for_log("too new for the onnxruntime")
        assert server.process._child is not None
        assert server.process._child.wait(30) == 3


def test_the_log_says_what_a_model_runs_on_and_why_not_elsewhere(tmp_path: Path) -> None:
    with served(models.echo(), tmp_path, "--providers", "xnnpack,cpu", "--arena", "shrink", "--prefer", "latency") as server:
        log = server.process.log_text()
        assert "model m: xnnpack: not in this build of onnxruntime, which has" in log
        assert "model m runs on cpu" in log
        assert server.score({"data": [[1, 2]]}).json() == [[1, 2]]


def test_the_page_is_not_in_the_way_of_the_probes(tmp_path: Path) -> None:
    with served(models.echo(), tmp_path) as server:
        assert server.get("/", headers={"accept": "text/html"}).text == "Healthy"
        assert server.post("/docs").status_code == 405
        assert json.loads(server.get("/v2/health/ready").text) == {"ready": True}


def test_inputs_that_differ_in_their_rows_are_the_callers_mistake(tmp_path: Path) -> None:
    def body(rows: int) -> dict[str, Any]:
        return {"inputs": {"x": [[1, 2]] * 2, "y": [[3]] * rows}}

    with served(models.side_by_side(), tmp_path) as server:
        refused = server.post("/score", json.dumps(body(1)), headers={"content-type": "application/json"})
        assert refused.status_code == 400, refused.text
        assert "inputs 'x' and 'y' disagree about the axis N: 2 and 1" in refused.json()["message"]
        scored = server.post("/score", json.dumps(body(2)), headers={"content-type": "application/json"})
        assert scored.status_code == 200, scored.text
