"""Infer requests read with one call, and answers cut out of a shared run: the same as everybody's own, to the byte."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import HedgerowError
from runtime.exchange import Request
from runtime.models.onnx_model import OnnxModel
from runtime.models.outputs import RunOutputs, Share
from runtime.oip.answers import infer_answer
from runtime.oip.binary import HEADER_LENGTH
from runtime.oip.messages import InferRequest, InferWanted, rows_from, understand
from tests import scoring_models as models

KINDS = ("FP32", "FP64", "INT64", "INT8", "BOOL")
DTYPES = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "INT8": "<i1", "BOOL": "?"}
NUMBERS = st.one_of(st.floats(width=32), st.integers(-(2**65), 2**65), st.none(), st.booleans(), st.just("1"))


@pytest.fixture(scope="module")
def iris() -> OnnxModel:
    return OnnxModel("iris", models.iris())


def request(document: dict[str, Any], binary: bytes | None = None) -> Request:
    head = json.dumps(document).encode()
    if binary is None:
        return Request("POST", "/v2/models/iris/infer", body=head)
    return Request("POST", "/v2/models/iris/infer", headers={HEADER_LENGTH: str(len(head))}, body=head + binary)


def check_same(model: OnnxModel, asked: Request) -> bool:
    """Whether the short way took it; then the long way says the same."""
    form = model.row_form
    assert form is not None
    found = rows_from(model, form, asked)
    if found is None:
        return False
    question, values, rows = found
    expected, feeds = understand(model, asked)
    array = form.array([values])
    np.testing.assert_array_equal(array, feeds["X"])
    assert array.dtype == feeds["X"].dtype
    assert rows == len(feeds["X"])
    assert (question.id, question.parameters) == (expected.id, expected.parameters)
    assert msgspec.to_builtins(question.outputs) == msgspec.to_builtins(expected.outputs)
    return True


@given(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["X", "Y"]),
            "datatype": st.sampled_from(["FP32", "FP64"]),
            "shape": st.lists(st.integers(-1, 4), max_size=3),
        },
        optional={"parameters": st.just({"a": 1}), "data": st.lists(NUMBERS, max_size=8)},
    ),
    st.fixed_dictionaries({}, optional={"id": st.text(max_size=3), "outputs": st.just([{"name": "label"}]), "more": st.just(1)}),
)
def test_json_that_the_short_way_takes_is_read_as_the_long_way_does(
    iris: OnnxModel, given_input: dict[str, Any], rest: dict[str, Any]
) -> None:
    check_same(iris, request({"inputs": [given_input], **rest}))


def test_what_most_callers_send_goes_the_short_way(iris: OnnxModel) -> None:
    plain = {"name": "X", "datatype": "FP32", "shape": [2, 4], "data": [1, 2.5, 3, 4, 5, 6, 7, 8]}
    assert check_same(iris, request({"inputs": [plain]}))
    assert check_same(iris, request({"inputs": [plain], "id": "7", "parameters": {"binary_data_output": True}}))
    binary = {"name": "X", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}
    asked = request({"inputs": [binary], "outputs": [{"name": "label", "parameters": {"binary_data": True}}]}, bytes(range(32)))
    understand(iris, asked)
    assert check_same(iris, asked)


def test_bytes_are_moved_to_where_onnxruntime_wants_them(iris: OnnxModel) -> None:
    """The tensor stands behind JSON of any length."""
    form = iris.row_form
    assert form is not None
    for start in range(4):
        assert form.array([memoryview(bytes(40))[start : start + 32]]).flags.aligned


@pytest.mark.parametrize(
    ("changed", "size"),
    [
        ({"shape": [1, 4]}, 32),
        ({"shape": [2, 4]}, 31),
        ({"shape": [2, 4]}, 33),
        ({"shape": [4, 2]}, 32),
        ({"datatype": "INT32"}, 32),
        ({"name": "Y"}, 32),
        ({"parameters": {"binary_data_size": 16}}, 32),
        ({"data": [1]}, 32),
    ],
)
def test_a_binary_request_that_does_not_add_up_is_refused_as_ever(iris: OnnxModel, changed: dict[str, Any], size: int) -> None:
    binary = {"name": "X", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}, **changed}
    asked = request({"inputs": [binary]}, bytes(size))
    form = iris.row_form
    assert form is not None
    for _ in range(2):
        assert rows_from(iris, form, asked) is None
        if "data" not in changed:
            with pytest.raises(HedgerowError):
                understand(iris, asked)


def test_what_another_model_was_asked_is_not_taken_for_this_ones(iris: OnnxModel) -> None:
    """The JSON part of binary requests is remembered by its bytes, whichever model it was for."""
    binary = {"name": "X", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    other = OnnxModel("other", models.iris())
    other.output_names = ["label", "probabilities", "elsewhere"]
    asked = request({"inputs": [binary], "outputs": [{"name": "elsewhere"}]}, bytes(16))
    understand(other, asked)
    form = iris.row_form
    assert form is not None
    assert rows_from(iris, form, asked) is None
    with pytest.raises(HedgerowError, match="elsewhere"):
        understand(iris, asked)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.lists(
        st.tuples(st.sampled_from([*KINDS, "texts", "maps"]), st.integers(0, 3), st.sampled_from([None, True, False])),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_an_answer_cut_out_of_a_shared_run_is_the_one_it_would_have_been_alone(
    iris: OnnxModel, rows: list[int], columns: list[tuple[str, int, bool | None]], binary: bool
) -> None:
    total, values, wanted = sum(rows), dict[str, object](), []
    for number, (kind, width, in_binary) in enumerate(columns):
        name = f"y{number}"
        if kind == "maps":
            values[name] = [{"a": float(row), "b": 1.0} for row in range(total)]
        elif kind == "texts":
            values[name] = np.array([f"text {row}" for row in range(total)], dtype=np.object_)
        else:
            values[name] = (np.arange(total * width) % 2).reshape(total, width).astype(DTYPES[kind])
        wanted.append(InferWanted(name, {} if in_binary is None else {"binary_data": in_binary}))
    asked = InferRequest([], id="7", parameters={"binary_data_output": binary}, outputs=wanted)
    outputs, start = RunOutputs(values), 0
    for count in rows:
        share = Share(outputs, start, start + count)
        assert infer_answer(iris, asked, share) == infer_answer(iris, asked, Share(RunOutputs(share.values())))
        start += count
