"""Sample inputs in the forms that people have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from packager.convert.inside.failures import Failure
from packager.convert.inside.samples import MATRIX, matrix_of, read_sample

_ROWS = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "document",
    [
        _ROWS,
        {"data": _ROWS},
        {"input_data": _ROWS},
        {"input_data": {"columns": ["a", "b"], "index": [0, 1], "data": _ROWS}},
        {"columns": ["a", "b"], "data": _ROWS},
        {"dataframe_split": {"columns": ["a", "b"], "data": _ROWS}},
        {"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]},
        [{"a": 1, "b": 2}, {"a": 3, "b": 4}],
        {"a": [1, 3], "b": [2, 4]},
        {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]},
    ],
    ids=lambda document: json.dumps(document)[:40],
)
def test_forms_of_json_are_the_same_rows(document: object, tmp_path: Path) -> None:
    file = tmp_path / "sample.json"
    file.write_text(json.dumps(document))
    assert matrix_of(read_sample(file), 2, ["a", "b"]).tolist() == _ROWS


def test_columns_are_ordered_as_the_model_names_them(tmp_path: Path) -> None:
    file = tmp_path / "sample.csv"
    file.write_text("b,a\n2,1\n4,3\n")
    assert matrix_of(read_sample(file), 2, ["a", "b"]).tolist() == _ROWS


def test_arrays_and_gaps(tmp_path: Path) -> None:
    np.savez(tmp_path / "sample.npz", ids=np.arange(3), mask=np.ones(3))
    assert list(read_sample(tmp_path / "sample.npz")) == ["ids", "mask"]
    (tmp_path / "sample.csv").write_text("1,\n3,4\n")
    assert np.isnan(read_sample(tmp_path / "sample.csv")[MATRIX][0, 1])
    (tmp_path / "text.csv").write_text("city,size\nx,1\ny,2\n")
    assert read_sample(tmp_path / "text.csv")["city"].tolist() == ["x", "y"]
    assert matrix_of({MATRIX: np.array([1.0, 2.0])}, 2, None).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("content", [b"{", b"[[1], [2, 3]]", b'{"columns": ["a"], "data": 5}', b"\xff"])
def test_what_is_no_sample_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "sample.json"
    file.write_bytes(content)
    with pytest.raises(Failure) as refused:
        read_sample(file)
    assert refused.value.kind == "sample_unfit"


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "sample.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(Failure):
        read_sample(tmp_path / "sample.npy")
