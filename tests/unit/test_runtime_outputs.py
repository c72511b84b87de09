"""Requests that share a run: their rows in one array, and everybody's own part of the outputs, in every form."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from hedgerow.contracts.model import TensorSpec
from runtime.aml.rows import rows_from
from runtime.errors import BadTensor
from runtime.models.batching import merge
from runtime.models.outputs import RunOutputs, Share
from runtime.models.row_form import RowForm, row_form
from runtime.tensors import array_from_json, values_of

SPEC = TensorSpec(name="x", datatype="FP32", shape=[-1, 2])
NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.none(),
    st.sampled_from(["1", 0.1, 1e39, -0.0, 2**53 + 1, 16777217, 1e400]),
)


def cut(outputs: RunOutputs, rows: list[int]) -> list[Share]:
    ends = np.cumsum(rows).tolist()
    return [Share(outputs, end - count, end) for count, end in zip(rows, ends, strict=True)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=10))
def test_what_is_merged_and_cut_again_is_everybodys_own(rows: list[int]) -> None:
    together = merge([{"x": np.full((count, 2), number, np.float32)} for number, count in enumerate(rows)])
    maps = [{"a": float(value)} for value in together["x"][:, 0]]
    outputs = RunOutputs({"y": together["x"] * 2, "maps": maps})
    assert outputs.separable(sum(rows))
    for number, (share, count) in enumerate(zip(cut(outputs, rows), rows, strict=True)):
        own = np.full((count, 2), number * 2, np.float32)
        values, nested = share.values(), share.nested()
        y = outputs.values["y"]
        assert isinstance(y, np.ndarray)
        assert np.array_equal(np.asarray(values["y"]), own)
        assert nested["y"] == own.tolist()
        assert share.flat("y", y) == own.ravel().tolist()
        assert share.raw("y", y) == own.tobytes()
        assert share.shape(y) == own.shape
        assert values["maps"] == nested["maps"] == [{"a": float(number)}] * count


@pytest.mark.parametrize(
    ("value", "rows"),
    [(np.zeros(3), 2), (np.float32(3), 2), (np.array(3.0), 1), ([{"a": 1.0}], 2), ("text", 4)],
)
def test_an_output_that_has_not_one_row_for_each_cannot_be_cut(value: object, rows: int) -> None:
    assert not RunOutputs({"y": value}).separable(rows)


def test_whoever_was_alone_gets_everything_even_what_has_no_rows() -> None:
    share = Share(RunOutputs({"total": np.array(3.0), "maps": [{"a": np.float32(1)}], "none": np.zeros((0, 3), np.float32)}))
    assert share.nested() == {"total": 3.0, "maps": [{"a": 1.0}], "none": []}
    assert share.shape(np.zeros((0, 3))) == (0, 3)


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=3), max_size=4))
def test_rows_read_with_one_call_are_those_read_one_by_one_or_declined(rows: list[list[object]]) -> None:
    form = row_form([SPEC])
    assert form is not None
    body = json.dumps({"data": rows}).encode()
    found = rows_from(form, body)
    if found is None:
        return
    values, count = found
    array = form.array([values])
    assert count == len(rows)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, array_from_json(SPEC, json.loads(body)["data"]))


@given(st.lists(st.lists(st.one_of(st.integers(-300, 300), st.just(1.5), st.just(2.0)), min_size=2, max_size=2), min_size=1))
def test_whole_numbers_are_read_only_where_nothing_is_lost(rows: list[list[object]]) -> None:
    spec = TensorSpec(name="x", datatype="INT8", shape=[-1, 2])
    form = row_form([spec])
    assert form is not None
    found = rows_from(form, json.dumps({"data": rows}).encode())
    if found is not None:
        np.testing.assert_array_equal(form.array([found[0]]), array_from_json(spec, rows))
    elif all(isinstance(value, int) for row in rows for value in row):
        with pytest.raises(BadTensor):
            array_from_json(spec, rows)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[[1, 2]]",
        b'{"data": []}',
        b'{"data": [[1, 2]], "inputs": 3}',
        b'{"data": [[1, 2], [1]]}',
        b'{"data": [[1, true]]}',
        b'{"data": [[1, NaN]]}',
        b'{"data": [[1, null]]}',
        b'{"data": [["1", "2"]]}',
        b'{"data": [1, 2]}',
        b'{"data": [[1, 2]]} x',
        b'{"data": [[1, 2]]',
        b'\xff{"data": [[1, 2]]}',
        b'{"data": ' + b"[" * 100_000,
    ],
)
def test_everything_but_rows_of_numbers_is_declined(body: bytes) -> None:
    assert rows_from(RowForm("x", "FP32", 2), body) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8])
def test_lists_and_bytes_make_one_array_together(dtype: DTypeLike) -> None:
    datatype = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int8": "INT8"}[np.dtype(dtype).name]
    form = row_form([TensorSpec(name="x", datatype=datatype, shape=[-1, 2])])  # type: ignore[arg-type]  # one of them
    assert form is not None
    raw = memoryview(np.array([[3, 4], [5, 6]], dtype).tobytes())
    assert form.array([[1, 2], raw, [7, 8]]).tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert form.array([raw, raw]).tolist() == [[3, 4], [5, 6], [3, 4], [5, 6]]
    assert form.array([raw]).dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [("FP16", [-1, 2]), ("BYTES", [-1, 2]), ("FP32", [1, 2]), ("FP32", [-1, -1]), ("FP32", [-1]), ("BOOL", [-1, 2])],
)
def test_other_inputs_have_no_row_form(datatype: str, shape: list[int]) -> None:
    assert row_form([TensorSpec(name="x", datatype=datatype, shape=shape)]) is None  # type: ignore[arg-type]  # one of them


def test_values_that_json_writes_are_python_numbers() -> None:
    assert values_of(np.array([1, 2], np.int64)) == [1, 2]
