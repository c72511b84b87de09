"""Triton's own HTTP client, unmodified and with its defaults: binary tensors both ways, compression, several inputs, texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests import scoring_models as models
from tests.oip_models import every_type, put_models
from tests.scoring_server import ScoringServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    root = put_models(
        tmp_path_factory.mktemp("triton") / "repository",
        iris=models.iris(),
        kinds=models.many_kinds(),
        text=models.echo_text(),
        types=every_type(),
        echo=models.echo(),
    )
    arguments = ("--model-repository", root, "--model-control", "explicit", "--max-body-bytes", "5000000")
    with ScoringServer(root.parent / "s", *arguments) as running:
        yield running


@pytest.fixture
def client(server: ScoringServer) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as connected:
        yield connected


def filled(name: str, array: np.ndarray[Any, Any], datatype: str, *, binary: bool = True) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_what_the_server_tells(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "1")
    assert not client.is_model_ready("none")
    assert not client.is_model_ready("iris", "2")
    assert client.get_server_metadata()["name"] == "hedgerow"
    assert client.get_model_metadata("iris")["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
    config = client.get_model_config("iris")
    assert (config["backend"], config["input"][0]["data_type"]) == ("onnxruntime", "TYPE_FP32")
    assert {entry["name"] for entry in client.get_model_repository_index()} == {"iris", "kinds", "text", "types", "echo"}


def test_scoring_with_the_defaults(client: Any) -> None:
    rows = models.iris_rows()[0][:7]
    result = client.infer("iris", [filled("X", rows, "FP32")], request_id="a/b c")
    expected = models.iris_classifier().predict_proba(rows)
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-4)
    assert result.get_response()["id"] == "a/b c"
    assert result.get_output("label")["parameters"]["binary_data_size"] == 7 * 8
    wanted = [triton.InferRequestedOutput("label", binary_data=False), triton.InferRequestedOutput("probabilities")]
    both = client.infer("iris", [filled("X", rows, "FP32", binary=False)], outputs=wanted)
    assert both.get_output("label")["data"] == result.as_numpy("label").tolist()
    np.testing.assert_array_equal(both.as_numpy("probabilities"), result.as_numpy("probabilities"))


@pytest.mark.parametrize("binary", [True, False])
def test_several_inputs_with_odd_names(client: Any, binary: bool) -> None:
    arrays = {
        "sr/rate": (np.array(16000, np.int64), "INT64"),
        'flag:"on"': (np.array([True, False]), "BOOL"),
        "größe.cm": (np.array([[1, -2]], np.int32), "INT32"),
        '{"json": 1}': (np.array([1e300]), "FP64"),
    }
    inputs = [filled(name, array, datatype, binary=binary) for name, (array, datatype) in arrays.items()]
    result = client.infer("kinds", inputs)
    for name, (array, _) in arrays.items():
        np.testing.assert_array_equal(result.as_numpy(f"out {name}"), array)


def test_texts(client: Any) -> None:
    texts = np.array(["é", "", "a\0b", "x" * 1000], dtype=np.object_)
    for binary in (True, False):
        result = client.infer("text", [filled("x", texts, "BYTES", binary=binary)])
        found = [item.decode() if isinstance(item, bytes) else item for item in result.as_numpy("y")]
        assert found == texts.tolist()


EDGES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65_535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-65504.0, 2.0**-24],
    "FP32": [float(np.float32(3.4e38)), 1e-45],
    "FP64": [1.7e308, 5e-324],
}


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_keeps_its_extremes(client: Any, binary: bool) -> None:
    arrays = {name: np.array(values, dtype=triton_dtype(name)) for name, values in EDGES.items()}
    # FP16 has no form in JSON.
    inputs = [filled(name, array, name, binary=binary or name == "FP16") for name, array in arrays.items()]
    wanted = [triton.InferRequestedOutput(f"out {name}", binary_data=binary or name == "FP16") for name in arrays]
    result = client.infer("types", inputs, outputs=wanted)
    for name, array in arrays.items():
        found = result.as_numpy(f"out {name}")
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array, err_msg=name)


def triton_dtype(name: str) -> Any:
    from tritonclient.utils import triton_to_np_dtype

    return triton_to_np_dtype(name)


def test_numbers_beyond_a_datatype_are_refused(server: ScoringServer) -> None:
    zeros = {name: [0, 0] for name in EDGES if name != "FP16"}
    for name, number in (("UINT8", 256), ("UINT64", 2**64), ("UINT64", -1), ("INT8", -129), ("INT64", 2**63), ("BOOL", 2)):
        inputs = [
            {"name": other, "datatype": other, "shape": [2], "data": [0, number] if other == name else values}
            for other, values in (zeros | {"BOOL": [False, True] if name != "BOOL" else [0, 2]}).items()
        ]
        inputs.append({"name": "FP16", "datatype": "FP16", "shape": [2], "data": [0, 0]})
        refused = server.infer("types", {"inputs": inputs})
        assert refused.status_code == 400
        assert f"Input '{name}' does not fit the model" in refused.json()["error"]


def test_fp16_is_refused_in_json_both_ways(server: ScoringServer, client: Any) -> None:
    arrays = {name: np.array(values, dtype=triton_dtype(name)) for name, values in EDGES.items()}
    inputs = [filled(name, array, name) for name, array in arrays.items()]
    with pytest.raises(InferenceServerException, match="output 'out FP16' is FP16, which has no form in JSON"):
        client.infer("types", inputs, outputs=[triton.InferRequestedOutput("out FP16", binary_data=False)])
    assert (
        client.infer("types", inputs, outputs=[triton.InferRequestedOutput("out FP16")]).as_numpy("out FP16").tolist()
        == EDGES["FP16"]
    )


@pytest.mark.parametrize("request_packing", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answer_packing", [None, "gzip", "deflate"])
def test_compression_both_ways(client: Any, request_packing: str | None, answer_packing: str | None) -> None:
    for rows in (1, 300, 60_000):
        array = np.tile(np.array([1.5, -2.5], np.float32), (rows, 1))
        result = client.infer(
            "echo",
            [filled("x", array, "FP32")],
            request_compression_algorithm=request_packing,
            response_compression_algorithm=answer_packing,
        )
        np.testing.assert_array_equal(result.as_numpy("y"), array)


def test_many_at_once(server: ScoringServer) -> None:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), concurrency=8) as client:
        pending = [
            client.async_infer("echo", [filled("x", np.array([[number, -number]], np.float32), "FP32")], request_id=str(number))
            for number in range(100)
        ]
        for number, one in enumerate(pending):
            result = one.get_result()
            assert result.as_numpy("y").tolist() == [[number, -number]]
            assert result.get_response()["id"] == str(number)


def test_the_asyncio_client(server: ScoringServer) -> None:
    async def score() -> list[float]:
        async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            answers = await asyncio.gather(
                *(client.infer("echo", [filled("x", np.array([[number, 0]], np.float32), "FP32")]) for number in range(20))
            )
            return [float(answer.as_numpy("y")[0, 0]) for answer in answers]

    assert asyncio.run(score()) == list(range(20))


def test_classes_instead_of_numbers(client: Any) -> None:
    rows = models.iris_rows()[0][:3]
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    found = client.infer("iris", [filled("X", rows, "FP32")], outputs=wanted).as_numpy("probabilities")
    best = [str(row[0], "ascii").split(":") for row in found]
    expected = models.iris_classifier().predict_proba(rows)
    assert found.shape == (3, 2)
    assert [int(index) for _, index in best] == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose([float(value) for value, _ in best], expected.max(axis=1), atol=1e-4)


def test_loading_unloading_and_statistics(client: Any) -> None:
    before = client.get_inference_statistics("echo", "1")["model_stats"][0]
    client.infer("echo", [filled("x", np.zeros((5, 2), np.float32), "FP32")])
    after = client.get_inference_statistics("echo")["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 5
    assert after["execution_count"] == before["execution_count"] + 1
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert after["last_inference"] > 1_700_000_000_000
    assert {one["name"] for one in client.get_inference_statistics()["model_stats"]} >= {"iris", "echo"}
    client.unload_model("kinds")
    assert not client.is_model_ready("kinds")
    client.load_model("kinds")
    assert client.is_model_ready("kinds")
    with pytest.raises(InferenceServerException, match="no model 'nothing'"):
        client.load_model("nothing")


def test_what_is_not_offered_is_refused_in_words(client: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client.get_system_shared_memory_status(),
        lambda: client.register_system_shared_memory("r", "/r", 64),
        lambda: client.unregister_system_shared_memory(),
        lambda: client.get_cuda_shared_memory_status(),
    ]
    for call in calls:
        with pytest.raises(InferenceServerException, match="Shared memory is not offered here"):
            call()
    shared = triton.InferInput("x", [1, 2], "FP32")
    shared.set_shared_memory("r", 8)
    with pytest.raises(InferenceServerException, match="Shared memory is not offered here"):
        client.infer("echo", [shared])
    into = triton.InferRequestedOutput("y")
    into.set_shared_memory("r", 8)
    with pytest.raises(InferenceServerException, match="Shared memory is not offered here"):
        client.infer("echo", [filled("x", np.zeros((1, 2), np.float32), "FP32")], outputs=[into])


@pytest.mark.parametrize(
    ("name", "shape", "datatype", "says"),
    [
        ("x", [1, 3], "FP32", r"it has shape \[1, 3\]"),
        ("z", [1, 2], "FP32", "no input named 'z'"),
        ("x", [1, 2], "FP64", "it is sent as FP64"),
    ],
)
def test_what_does_not_fit_is_said(client: Any, name: str, shape: list[int], datatype: str, says: str) -> None:
    with pytest.raises(InferenceServerException, match=says):
        client.infer("echo", [filled(name, np.zeros(shape, triton_dtype(datatype)), datatype)])
    assert client.infer("echo", [filled("x", np.zeros((1, 2), np.float32), "FP32")]).as_numpy("y").tolist() == [[0, 0]]


def test_a_body_over_the_limit_once_unpacked(client: Any, tmp_path: Path) -> None:
    too_much = filled("x", np.zeros((1_000_000, 2), np.float32), "FP32")
    for packing in (None, "gzip", "deflate"):
        with pytest.raises(InferenceServerException, match="larger than 5000000 bytes"):
            client.infer("echo", [too_much], request_compression_algorithm=packing)
