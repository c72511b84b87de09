"""Both scoring contracts over real HTTP on real models: right answers, and one clear sentence for every wrong input."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ScoringConfig, ServedModel
from tests import scoring_models as models
from tests.scoring_server import ScoringServer

ROW = [5.1, 3.5, 1.4, 0.2]


def image_of(folder: Path, **files: Path) -> Path:
    served = []
    for name, file in files.items():
        place = folder / "models" / name / "1"
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(file.read_bytes())
        path = f"models/{name}/1"
        served.append(ServedModel(name=name, version=1, digest="sha256:" + "0" * 64, path=path, entry=f"{path}/model.onnx"))
    (folder / "hedgerow.json").write_bytes(encode(ScoringConfig(models=served)))
    return folder


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    with ScoringServer(tmp_path_factory.mktemp("iris"), "--model", models.iris(), "--max-body-bytes", "1000000") as server:
        yield server


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    """An image with every trap that needs its own model."""
    image = image_of(
        tmp_path_factory.mktemp("image"),
        maps=models.iris_with_maps(),
        digits=models.digits()[0],
        shuttle=models.shuttle_anomalies()[0],
        kinds=models.many_kinds(),
        text=models.echo_text(),
        fixed=models.fixed_batch(),
        echo=models.echo(),
    )
    with ScoringServer(tmp_path_factory.mktemp("several"), "--image", image) as server:
        yield server


def tensor(name: str, datatype: str, shape: list[int], data: object) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


# The AML contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{"data": [ROW] * 3}, [ROW] * 3, {"inputs": {"X": [ROW] * 3}}, {"inputs": [ROW] * 3}])
def test_score_takes_the_three_forms(iris: ScoringServer, body: object) -> None:
    answer = iris.score(body)
    assert answer.status_code == 200
    expected = models.iris_classifier().predict_proba(np.array([ROW] * 3, dtype=np.float32))
    assert answer.json()["label"] == [0, 0, 0]
    np.testing.assert_allclose(answer.json()["probabilities"], expected, atol=1e-4)
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert float(answer.headers["x-ms-run-fn-exec-ms"]) > 0


def test_score_takes_a_query_and_answers_options(iris: ScoringServer) -> None:
    assert iris.get("/score", params={"data": json.dumps([ROW])}).json()["label"] == [0]
    options = iris.client.request("OPTIONS", iris.url + "/score")
    assert (options.status_code, options.content) == (200, b"")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "it is empty"),
        (b"{", "could not be decoded as JSON"),
        (b"\xff\xfe\x00", "could not be decoded as JSON"),
        (b'{"data": [[1, 2, 3]]}', "it has shape [1, 3]. The model wants FP32 of shape [-1, 4]"),
        (b'{"data": [1, 2, 3, 4]}', "it has shape [4]"),
        (b'{"data": [["a", "b", "c", "d"]]}', "text where numbers are wanted"),
        (b'{"data": [[1, 2, 3, 4], [1]]}', "its rows have different lengths"),
        (b'{"data": {"Y": [[1, 2, 3, 4]]}}', "no input named 'Y'. The model's inputs are: 'X'"),
        (b'{"inputs": {}}', "not provided for the input 'X'"),
        (b'{"rows": []}', "neither 'data' nor 'inputs'"),
        (b'{"data": [], "inputs": []}', "it has both"),
        (b"5", "it has shape []"),
        (b"null", "it has shape []"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 60 + b"1" + b"]" * 60, "shape"),
        (b"[[" + b"1" * 5000 + b"]]", "could not be decoded as JSON"),
    ],
)
def test_score_says_what_is_wrong_with_a_body(iris: ScoringServer, body: bytes, says: str) -> None:
    answer = iris.post("/score", body)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["message"]
    assert says in answer.json()["message"]
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert iris.score([ROW]).status_code == 200, "the next request is answered"


def test_nan_goes_in_and_out_of_score(several: ScoringServer, tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo()) as server:
        answer = server.post("/score", '{"data": [[NaN, Infinity]]}')
        assert answer.status_code == 200
        assert answer.text == "[[NaN, Infinity]]"
        assert math.isnan(json.loads(answer.text)[0][0])
    body = {"inputs": [tensor("x", "FP32", [1, 2], [None, 1.0])]}
    assert several.infer("echo", body).json()["outputs"][0]["data"] == [None, 1.0], "JSON proper has no NaN"


def test_ids_come_back_and_are_limited(iris: ScoringServer) -> None:
    answer = iris.score([ROW], headers={"x-request-id": "a", "x-ms-client-request-id": "c", "TraceId": "t"})
    ids = [answer.headers[name] for name in ("x-request-id", "x-ms-request-id", "x-ms-client-request-id", "TraceId")]
    assert ids == ["a", "c", "c", "t"]
    scored = iris.metric("hedgerow_scored_rows_total")
    refused = iris.score([ROW], headers={"x-request-id": "i" * 101})
    assert (refused.status_code, refused.json()) == (431, {"message": "x-request-id must not exceed 100 characters"})
    assert iris.metric("hedgerow_scored_rows_total") == scored, "a refused request costs no run"
    assert iris.get("/").headers["x-request-id"]


def test_other_routes_of_the_contract(iris: ScoringServer) -> None:
    health = iris.get("/")
    assert (health.status_code, health.text) == (200, "Healthy")
    assert iris.get("/swagger.json").json()["swagger"] == "2.0"
    example = iris.get("/swagger.json", params={"version": "3.1"}).json()["components"]["schemas"]["ServiceInput"]["example"]
    assert iris.score(example).status_code == 200, "the documented example works"
    unknown = iris.get("/swagger.json", params={"version": "9"})
    assert (unknown.status_code, unknown.json()["message"][:27]) == (404, "Swagger version [9] is not ")
    assert list(iris.get("/nothing").json()) == ["message"]
    wrong = iris.client.put(iris.url + "/score")
    assert (wrong.status_code, wrong.json()["message"]) == (405, "The method is not allowed for the requested URL.")
    assert "POST" in wrong.headers["allow"]


def test_score_does_not_guess_between_models(several: ScoringServer) -> None:
    answer = several.score([ROW])
    assert answer.status_code == 400
    assert "which of the models" in answer.json()["message"]
    assert several.get("/swagger.json").status_code == 200


# The Open Inference Protocol -------------------------------------------------------------------------------------------


def test_infer_agrees_with_the_trained_models(several: ScoringServer) -> None:
    _, classifier, rows = models.digits()
    body = {"id": "42", "inputs": [tensor("X", "FP32", [100, 64], rows[:100].ravel().tolist())]}
    answer = several.infer("digits", body).json()
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "digits", "1")
    assert outputs["label"]["data"] == classifier.predict(rows[:100]).tolist()
    np.testing.assert_allclose(outputs["probabilities"]["data"], classifier.predict_proba(rows[:100]).ravel(), atol=1e-4)

    _, forest = models.shuttle_anomalies()
    rows = models.shuttle_rows()[:50]
    body = {"inputs": [tensor("X", "FP32", [50, 9], rows.tolist())], "outputs": [{"name": "label"}]}
    answer = several.infer("shuttle", body).json()
    assert [output["name"] for output in answer["outputs"]] == ["label"]
    assert answer["outputs"][0]["data"] == forest.predict(rows).tolist()


def test_metadata_and_health(several: ScoringServer) -> None:
    extensions = ["binary_tensor_data", "classification", "model_configuration", "parameters", "statistics"]
    assert several.get("/v2").json()["extensions"] == extensions, "only what is there: no repository, no shared memory"
    assert several.get("/v2/health/live").json() == {"live": True}
    assert several.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/shuttle", "/v2/models/shuttle/versions/1"):
        facts = several.get(path).json()
        assert facts["platform"] == "onnx_onnxv1"
        assert facts["versions"] == ["1"]
        assert facts["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 9]}]
    assert several.get("/v2/models/shuttle/ready").json() == {"name": "shuttle", "ready": True}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v2/models/none", "no model 'none' here. Served are: maps, digits"),
        ("/v2/models/none/ready", "no model 'none'"),
        ("/v2/models/echo/versions/2", "no version '2' of model 'echo'"),
        ("/v2/models/echo/versions/2/ready", "no version '2'"),
        ("/v2/nothing", "not found"),
    ],
)
def test_what_is_not_there_is_said_in_this_protocols_shape(several: ScoringServer, path: str, says: str) -> None:
    answer = several.get(path)
    assert answer.status_code == 404
    assert says in answer.json()["error"]


def test_every_datatype_and_every_odd_name(several: ScoringServer) -> None:
    inputs = [
        tensor("sr/rate", "INT64", [], [16000]),
        tensor('flag:"on"', "BOOL", [2], [True, False]),
        tensor("größe.cm", "INT32", [1, 2], [[1, -2]]),
        tensor('{"json": 1}', "FP64", [1], [1e300]),
    ]
    outputs = {output["name"]: output for output in several.infer("kinds", {"inputs": inputs}).json()["outputs"]}
    assert outputs["out sr/rate"] == {"name": "out sr/rate", "datatype": "INT64", "shape": [], "data": [16000]}
    assert outputs['out flag:"on"']["data"] == [True, False]
    assert outputs["out größe.cm"]["shape"] == [1, 2]
    assert outputs['out {"json": 1}']["data"] == [1e300]
    text = several.infer("text", {"inputs": [tensor("x", "BYTES", [2], ["é", ""])]}).json()
    assert text["outputs"][0] == {"name": "y", "datatype": "BYTES", "shape": [2], "data": ["é", ""]}


def test_a_sequence_of_maps_is_a_tensor_here_and_maps_on_score(several: ScoringServer, tmp_path: Path) -> None:
    body = {"inputs": [tensor("X", "FP32", [2, 4], ROW * 2)]}
    probabilities = several.infer("maps", body).json()["outputs"][1]
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [2, 3])
    with ScoringServer(tmp_path, "--model", models.iris_with_maps()) as server:
        maps = server.score([ROW]).json()["output_probability"]
    np.testing.assert_allclose([maps[0][key] for key in ("0", "1", "2")], probabilities["data"][:3], atol=1e-6)


def test_a_fixed_batch_is_kept(several: ScoringServer) -> None:
    assert several.infer("fixed", {"inputs": [tensor("x", "FP32", [3, 2], [1] * 6)]}).status_code == 200
    refused = several.infer("fixed", {"inputs": [tensor("x", "FP32", [1, 2], [1, 1])]})
    assert refused.status_code == 400
    assert "FP32 of shape [3, 2]" in refused.json()["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "truncated"),
        (b"{", "truncated|malformed"),
        (b"{}", "missing required field `inputs`"),
        (b'{"inputs": [{"name": "x"}]}', "missing required field"),
        (b'{"inputs": []}', "not provided for the input 'x'"),
        (b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]}', "it is sent as FP64"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2]}]}', "it has no data"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2]}]}', "does not hold 2 values"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": ["a"], "data": [1, 2]}]}', r"Expected `int`"),
        (b'{"inputs": [{"name": "z", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}', "no input named 'z'"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [NaN, 1]}]}', "malformed"),
        (b"[" * 100_000, "Expected `object`|nested too deep|malformed"),
    ],
)
def test_infer_says_what_is_wrong_with_a_body(several: ScoringServer, body: bytes, says: str) -> None:
    answer = several.post("/v2/models/echo/infer", body)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]
    assert any(part in answer.json()["error"] for part in says.split("|")), answer.text


def test_an_output_that_is_not_there(several: ScoringServer) -> None:
    body = {"inputs": [tensor("x", "FP32", [1, 2], [1, 2])], "outputs": [{"name": "z"}]}
    assert "no output named 'z'. The model's outputs are: 'y'" in several.infer("echo", body).json()["error"]


def test_binary_tensors_in_and_out(several: ScoringServer) -> None:
    values = np.array([[1.5, -2.5]], dtype="<f4")
    head = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]}
    head["parameters"] = {"binary_data_output": True}  # type: ignore[assignment]  # a JSON object
    text = json.dumps(head).encode()
    answer = several.post(
        "/v2/models/echo/infer", text + values.tobytes(), headers={"Inference-Header-Content-Length": str(len(text))}
    )
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    output = json.loads(answer.content[:length])["outputs"][0]
    assert output["parameters"] == {"binary_data_size": 8}
    assert answer.content[length:] == values.tobytes()
    assert answer.headers["content-type"] == "application/octet-stream"

    raw = several.post("/v2/models/echo/infer", values.tobytes() * 3, headers={"Inference-Header-Content-Length": "0"})
    assert raw.content[int(raw.headers["inference-header-content-length"]) :] == values.tobytes() * 3
    short = several.post("/v2/models/echo/infer", text + b"1234", headers={"Inference-Header-Content-Length": str(len(text))})
    assert (short.status_code, "binary_data_size" in short.json()["error"]) == (400, True)


# Limits and counting ---------------------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_on_both_sides(iris: ScoringServer) -> None:
    for path, key in (("/score", "message"), ("/v2/models/iris/infer", "error")):
        answer = iris.post(path, b" " * 1_000_001)
        assert answer.status_code == 413
        assert "larger than 1000000 bytes" in answer.json()[key]
    assert iris.post("/score", json.dumps([ROW]).encode().ljust(1_000_000)).status_code == 200, "exactly the limit is fine"


def test_a_chunked_body_over_the_limit_is_refused_too(iris: ScoringServer) -> None:
    with socket.create_connection(("127.0.0.1", iris.port), timeout=20) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            connection.sendall(b"80000\r\n" + b" " * 0x80000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]


def test_a_body_that_ends_early_is_not_scored(iris: ScoringServer) -> None:
    with socket.create_connection(("127.0.0.1", iris.port), timeout=20) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + json.dumps([ROW]).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert b"it ended after 22 of 100 bytes" in answer


def test_one_hundred_megabytes_are_refused_without_being_held(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo()) as server:
        row = b"[1,2],"
        body = b'{"data":[' + row * (100_000_000 // len(row)) + b"[1,2]]}"
        assert len(body) < 104_857_600
        refused = server.post("/score", body + b" " * 104_857_600)
        assert refused.status_code == 413
        assert server.score([[1, 2]]).json() == [[1.0, 2.0]]


def test_metrics_count_in_our_names_and_tritons(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), "--name", "flowers", "--workers", "2") as server:
        for _ in range(40):
            assert server.score([ROW, ROW]).status_code == 200
        server.infer("flowers", {"inputs": [tensor("X", "FP32", [1, 4], ROW)]})
        server.post("/score", b"{")
        assert server.metric('nv_inference_request_success{model="flowers",version="1"}') == 41
        assert server.metric('nv_inference_count{model="flowers",version="1"}') == 81
        assert server.metric('nv_inference_exec_count{model="flowers",version="1"}') == 41
        assert server.metric('hedgerow_requests_total{route="score",status="200"}') == 40
        assert server.metric('hedgerow_requests_total{route="score",status="400"}') == 1
        assert server.metric('hedgerow_request_seconds_count{route="score"}') == 41
        assert server.metric("hedgerow_in_flight") == 0
        assert server.metric("hedgerow_workers_started_total") == 2


def test_ready_says_where_and_who_and_goes_with_the_server(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo()) as server:
        assert server.ready == {"address": server.url, "pid": server.process.pid}
        assert server.url.startswith("http://127.0.0.1:"), "loopback unless told otherwise"
    assert not server.ready_file.exists()


def test_the_access_log_as_json(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo(), "--access-log", "json", "--log-format", "json") as server:
        server.score([[1, 2]], headers={"x-request-id": "r1"})
        server.wait_for_log("/score")
        lines = [json.loads(line) for line in server.process.log_text().splitlines()]
    line = next(line for line in lines if line.get("path") == "/score")
    assert (line["status"], line["request_id"], line["method"]) == (200, "r1", "POST")


def test_nothing_phones_home(tmp_path: Path) -> None:
    """onnxruntime 1.31 would leave a device id and a database of events in the home folder (see runtime/models/onnx_model.py)."""
    with ScoringServer(tmp_path, "--model", models.echo()) as server:
        server.score([[1, 2]])
        assert "device ID" not in server.process.log_text()
    assert not [place for place in tmp_path.rglob("*") if "Microsoft" in place.parts or place.name == "deviceid"]
