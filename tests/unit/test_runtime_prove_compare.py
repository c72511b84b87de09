"""How answers are compared in a proof, and how recorded vectors are read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hedgerow.contracts.model import TensorSpec
from runtime.prove.measure import compare
from runtime.prove.vectors import VectorsUnusable, made_up_vectors, read_vectors


def test_within_tolerance_is_agreement_and_the_largest_error_is_told() -> None:
    found = compare({"y": np.array([1.0, 2.0])}, {"y": np.array([1.00005, 2.0])}, 1e-4, 0.0)
    assert found.max_abs_error == pytest.approx(5e-5)
    assert not found.problem


@pytest.mark.parametrize(
    ("wanted", "got", "says"),
    [
        ([1.0, 2.0], [1.0, 2.5], "differs in 1 of 2 values, by up to 0.5"),
        ([1, 2], [1, 3], "differs in 1 of 2 values"),
        ([1.0], [math.nan], "differs in 1 of 1"),
        ([1.0, 2.0], [[1.0]], "has shape"),
    ],
)
def test_differences_are_counted_and_named(wanted: list[object], got: list[object], says: str) -> None:
    assert says in compare({"y": np.array(wanted)}, {"y": np.array(got)}, 1e-4, 1e-3).problem


def test_nan_equals_nan_and_infinity_itself() -> None:
    values = np.array([math.nan, math.inf, -math.inf])
    found = compare({"y": values}, {"y": values.astype(np.float32)}, 1e-4, 1e-3)
    assert (found.max_abs_error, found.problem) == (0.0, "")


def test_text_must_be_equal_and_has_no_error_of_size() -> None:
    wanted = np.array(["a", "b"], dtype=object)
    assert compare({"y": wanted}, {"y": wanted.copy()}, 0, 0).max_abs_error is None
    assert "differs in 1 of 2" in compare({"y": wanted}, {"y": np.array(["a", "c"], dtype=object)}, 0, 0).problem


def test_a_column_and_a_list_are_the_same_answers() -> None:
    assert not compare({"y": np.array([1, 2])}, {"y": np.array([[1], [2]])}, 0, 0).problem


def record(folder: Path, index: object, **arrays: object) -> Path:
    (folder / "parity.json").write_text(json.dumps(index))
    np.savez(folder / "parity.npz", **arrays)  # type: ignore[arg-type]  # arrays of any kind, wrong ones too
    return folder


def test_recorded_vectors_are_found_in_the_first_folder_that_has_some(tmp_path: Path) -> None:
    assert read_vectors([tmp_path / "none", tmp_path]) is None
    index = {"inputs": ["x", "t"], "outputs": ["y"], "atol": 0.5}
    record(tmp_path, index, input_0=np.zeros((3, 2)), input_1=np.array(["a", "b", "c"]), output_0=np.ones(3))
    vectors = read_vectors([tmp_path / "none", tmp_path])
    assert vectors is not None
    assert (vectors.rows, vectors.recorded, vectors.index.atol) == (3, True, 0.5)
    assert vectors.inputs["t"].dtype == object


@pytest.mark.parametrize(
    ("index", "arrays", "says"),
    [
        ({"inputs": ["x"], "outputs": ["y"]}, {"input_0": np.zeros(3)}, "output_0"),
        ({"inputs": ["x"], "outputs": ["y"]}, {"input_0": np.zeros(3), "output_0": np.zeros(2)}, "different numbers"),
        ({"inputs": ["x"], "outputs": []}, {"input_0": np.zeros((0, 2))}, "no rows"),
        ({"inputs": ["x"], "outputs": []}, {"input_0": np.array([{}], dtype=object)}, "allow_pickle|Object arrays"),
        ({"inputs": "x"}, {}, "ParityIndex is not valid"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(tmp_path: Path, index: object, arrays: dict[str, object], says: str) -> None:
    with pytest.raises(VectorsUnusable, match=says):
        read_vectors([record(tmp_path, index, **arrays)])


def test_vectors_that_are_no_archive_are_refused(tmp_path: Path) -> None:
    record(tmp_path, {"inputs": ["x"], "outputs": []})
    (tmp_path / "parity.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(VectorsUnusable):
        read_vectors([tmp_path])


def test_made_up_inputs_are_the_same_every_time_and_grow_until_they_suit() -> None:
    specs = [TensorSpec(name="x", datatype="FP32", shape=[-1, -1]), TensorSpec(name="n", datatype="INT64", shape=[])]
    first, again = list(made_up_vectors(specs)), list(made_up_vectors(specs))
    assert [offer.inputs["x"].shape[1] for offer in first] == [16, 16, 1, 1, 256, 256, 576, 576, 4096, 4096, 16000, 16000]
    assert all(np.array_equal(a.inputs["x"], b.inputs["x"]) for a, b in zip(first, again, strict=True))
    assert all(offer.inputs["n"] == 1 for offer in first)
