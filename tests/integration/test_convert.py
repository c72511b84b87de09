"""`python -m packager convert` as the controller runs it: a trained model in, ONNX with its proof out, or a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, load_model, numpy_helper, save_model
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier

from hedgerow.contracts.document import decode, digest_of
from hedgerow.contracts.proof import ParityIndex
from tests.convert_builders import Converted, run_convert, save_pickle

_FEATURES, _CLASSES = load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("convert")


@pytest.fixture(scope="module")
def model() -> Any:
    names = np.array(["setosa", "versicolor", "virginica"])[_CLASSES]
    return LogisticRegression(max_iter=2000).fit(_FEATURES, names)


@pytest.fixture(scope="module")
def converted(place: Path, model: Any) -> Converted:
    """One conversion that several tests look at; the same cache serves the others of this module."""
    np.save(place / "sample.npy", _FEATURES)
    folder = save_pickle(place / "model", model)
    return run_convert(folder, place, framework="sklearn", sample_input=str(place / "sample.npy"))


def test_all_files_are_there_and_named_with_their_digests(converted: Converted) -> None:
    result = converted.result
    there = {path.name: digest_of(path.read_bytes()) for path in converted.out.iterdir()}
    assert there == {entry.path: entry.digest for entry in result.files}
    assert set(there) == {"model.onnx", "parity.npz", "parity.json", "io.json", "required_operators.config"}
    assert [line.step for line in converted.lines][-1] == "converted"


def test_what_was_measured_and_found_is_told(converted: Converted) -> None:
    result = converted.result
    assert result.agreement.rows >= 150
    assert result.agreement.max_abs_error < 1e-5
    assert (result.batchable, result.reused, result.quantized) == (True, False, None)
    assert result.latency_ms is not None
    assert result.peak_memory_bytes is not None
    assert 0 < result.latency_ms < 100
    assert {"sklearn", "skl2onnx", "onnx", "onnxruntime", "hedgerow"} <= set(result.tools)
    assert (result.inputs[0].datatype, result.inputs[0].shape) == ("FP32", [-1, 4])
    config = (converted.out / "required_operators.config").read_text().splitlines()
    assert all(line.startswith("#") or line.count(";") == 2 for line in config)


def test_the_converted_model_answers_as_the_trained_one(converted: Converted, model: Any) -> None:
    session = onnxruntime.InferenceSession((converted.out / "model.onnx").read_bytes())
    label, scores = session.run(None, {"X": _FEATURES.astype(np.float32)})
    assert label.tolist() == model.predict(_FEATURES).tolist()
    assert np.allclose(scores, model.predict_proba(_FEATURES), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == ["setosa", "versicolor", "virginica"]
    assert json.loads((converted.out / "io.json").read_bytes())["labels"] == json.loads(metadata["labels"])


def test_parity_vectors_hold_the_trained_answers(converted: Converted, model: Any) -> None:
    index = decode((converted.out / "parity.json").read_bytes(), ParityIndex)
    assert (index.inputs, index.outputs) == (["X"], ["label", "probabilities"])
    with np.load(converted.out / "parity.npz", allow_pickle=False) as arrays:
        rows, label = arrays["input_0"], arrays["output_0"]
    assert 32 <= len(rows) <= 64
    assert model.predict(rows).tolist() == label.tolist()


def test_an_equal_conversion_is_copied(converted: Converted, place: Path) -> None:
    again = run_convert(place / "model", place, out="again", framework="sklearn", sample_input=str(place / "sample.npy"))
    assert again.result.reused
    assert (again.result.key, again.result.files) == (converted.result.key, converted.result.files)
    for entry in again.result.files:
        assert (again.out / entry.path).read_bytes() == (converted.out / entry.path).read_bytes()


def test_a_damaged_cache_makes_it_anew_with_the_same_bytes(tmp_path: Path) -> None:
    folder = _write_onnx(tmp_path / "model")
    first = run_convert(folder, tmp_path)
    for entry in first.result.files:
        blob = tmp_path / "cache" / "blobs" / "sha256" / entry.digest.removeprefix("sha256:")
        blob.chmod(0o644)
        blob.write_bytes(b"rust")
    second = run_convert(folder, tmp_path, out="second")
    assert not second.result.reused
    assert (second.result.key, second.result.files) == (first.result.key, first.result.files)


def test_an_xgboost_file_needs_no_pickle(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    XGBClassifier(n_estimators=3).fit(_FEATURES, _CLASSES).get_booster().save_model(folder / "model.json")
    (folder / "input_example.json").write_text("[[1, 2, 3, 4]]")
    done = run_convert(folder, tmp_path, framework="xgboost")
    assert done.result.outputs[-1].shape == [-1, 3]
    assert "ai.onnx.ml.TreeEnsembleClassifier" in done.result.operators


def _write_onnx(folder: Path, opset: int = 17) -> Path:
    folder.mkdir()
    weights = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "made at 12:04 on somebody's machine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="somebody")
    save_model(model, folder / "model.onnx")
    return folder


def test_onnx_itself_is_optimised_and_proven(tmp_path: Path) -> None:
    done = run_convert(_write_onnx(tmp_path / "model"), tmp_path, quantize="dynamic", accuracy_loss_max=0.2)
    model = load_model(done.out / "model.onnx")
    assert (model.graph.name, model.producer_name) == ("model", "hedgerow")
    assert done.result.quantized is not None
    assert "ai.onnx.MatMulInteger" in done.result.operators
    assert (done.out / "model.float.onnx").is_file()
    assert done.result.batchable is not None


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    folder = _write_onnx(tmp_path / "model")
    model = load_model(folder / "model.onnx")
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="../../../../etc/passwd")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert run_convert(folder, tmp_path).problem_code == "outside_files"


def test_a_pickle_of_another_version_is_refused_with_the_sentence(tmp_path: Path, model: Any) -> None:
    folder = save_pickle(tmp_path / "model", model)
    import sklearn

    ours = sklearn.__version__.encode()
    other = ours[:-1] + (b"0" if ours[-1:] != b"0" else b"2")
    file = folder / "model.pkl"
    file.write_bytes(file.read_bytes().replace(ours, other))
    done = run_convert(folder, tmp_path)
    assert done.problem_code == "trained_with_other_version"
    assert f"scikit-learn=={other.decode()}" in done.problem_text


class _OwnClass:
    """Stands in a module that nobody else has."""


@pytest.mark.parametrize(
    ("what", "code", "word"),
    [
        (_OwnClass(), "library_missing", "test_convert"),
        ({"a": 1}, "nothing_to_predict", "dict"),
    ],
    ids=["own class", "no model"],
)
def test_what_is_no_model_of_a_library_is_named(what: object, code: str, word: str, tmp_path: Path) -> None:
    done = run_convert(save_pickle(tmp_path / "model", what), tmp_path)
    assert done.problem_code == code
    assert word in done.problem_text
    assert list(done.out.iterdir()) == []


def test_a_sample_that_does_not_fit_is_named(tmp_path: Path, model: Any) -> None:
    (tmp_path / "sample.csv").write_text("1,2,3\n4,5,6\n")
    done = run_convert(save_pickle(tmp_path / "model", model), tmp_path, sample_input=str(tmp_path / "sample.csv"))
    assert done.problem_code == "sample_unfit"
    assert "[2, 3]" in done.problem_text


def test_wrong_requests_are_sentences(tmp_path: Path, model: Any) -> None:
    folder = save_pickle(tmp_path / "model", model)
    assert run_convert(folder, tmp_path, opset=5).problem_code == "opset_unsupported"
    assert run_convert(folder, tmp_path, entry="other.pkl").problem_code == "no_such_entry"
    save_pickle(folder, model, "second.pkl")
    (folder / "model.pkl").rename(folder / "first.pkl")
    assert run_convert(folder, tmp_path).problem_code == "several_model_files"
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "old").write_text("")
    assert run_convert(folder, tmp_path, entry="first.pkl").problem_code == "out_not_empty"
