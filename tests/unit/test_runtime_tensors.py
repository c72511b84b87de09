"""What a JSON value may become: nothing is lost or guessed on the way into a tensor."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hedgerow.contracts.model import TensorSpec
from runtime.errors import BadTensor
from runtime.tensors import array_from_json, describe, values_of


def nested(value: object, depth: int) -> object:
    for _ in range(depth):
        value = [value]
    return value


def spec(datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name="x", datatype=datatype, shape=list(shape))  # type: ignore[arg-type]  # a Literal


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("FP32", [1, 2.5], [1.0, 2.5]),
        ("FP64", [1e300], [1e300]),
        ("FP32", [1e39], [math.inf]),
        # As JavaScript writes 1e20.
        ("FP64", [100000000000000000000, 0.5], [1e20, 0.5]),
        ("FP64", [10**40, -(2**70)], [1e40, -(2.0**70)]),
        ("INT64", [3.0, -4], [3, -4]),
        ("INT64", [2**63 - 1], [2**63 - 1]),
        ("UINT64", [2**64 - 1], [2**64 - 1]),
        ("UINT8", [0, 255], [0, 255]),
        ("BOOL", [True, False], [True, False]),
        ("BYTES", ["a", "é", ""], ["a", "é", ""]),
        ("FP32", [], []),
        ("FP32", [0.0, 1.0] * 500, [0.0, 1.0] * 500),
        ("INT64", [0, 1] * 500, [0, 1] * 500),
        ("INT8", [], []),
    ],
)
def test_values_that_fit_are_taken(datatype: str, data: list[object], expected: list[object]) -> None:
    assert array_from_json(spec(datatype, -1), data).tolist() == expected


@pytest.mark.parametrize(
    ("datatype", "data", "says"),
    [
        ("INT64", [1.5], "not whole"),
        ("INT64", [math.nan], "not whole"),
        ("INT64", [2**63], "out of range"),
        ("INT64", [2.0**63], "out of range"),
        ("INT8", [128], "out of range"),
        ("UINT8", [-1], "out of range"),
        ("UINT64", [2**64], "out of range"),
        ("INT64", [2**64, 0.5], "out of range"),
        ("FP64", [10**400], "out of range"),
        ("FP32", ["1.5"], "text where numbers"),
        ("FP32", [True, False], "true or false where numbers"),
        ("FP32", [{"a": 1}], "type dict"),
        ("FP32", [[1, 2], [3]], "different lengths"),
        ("FP32", [None, "a"], "type null, str"),
        ("INT64", [None], "null"),
        ("BOOL", [1], "where true or false"),
        ("FP32", [True, 2.5], "true or false among its numbers"),
        ("FP64", [[1.5, 2.5], [0.5, False]], "true or false among its numbers"),
        ("INT64", [2, True], "true or false among its numbers"),
        ("UINT64", [2**64 - 1, False], "true or false among its numbers"),
        ("BOOL", [True, 1], "true or false among its numbers"),
        ("FP32", [0.5] * 1000 + [True], "true or false among its numbers"),
        ("INT32", [[7] * 40] * 40 + [[7] * 39 + [False]], "true or false among its numbers"),
        ("FP32", nested(0.5, 65), "nested 65 deep; a tensor has 64 axes at most"),
        ("FP32", nested(0.5, 500), "nested 500 deep"),
        ("FP32", nested(None, 65), "nested 65 deep"),
        ("FP32", nested(None, 40), "of 40 axes"),
        ("INT32", nested(None, 40), "type null"),
        ("BYTES", nested("a", 65), "nested 65 deep"),
        ("BYTES", [["a"], ["a", "b"]], "different lengths"),
        ("BYTES", ["a", 1], "not text"),
        ("BYTES", [None], "not text"),
    ],
)
def test_values_that_would_change_are_refused(datatype: str, data: list[object], says: str) -> None:
    with pytest.raises(BadTensor, match=says):
        array_from_json(spec(datatype, -1), data)


def test_null_in_a_float_tensor_is_nan() -> None:
    array = array_from_json(spec("FP32", -1, 2), [[1.0, None], [2, 3]])
    assert math.isnan(array[0, 1])
    assert array[1].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("data", [[[1, 2, 3]], [1, 2], [[[1, 2]]], 5])
def test_a_shape_that_the_model_does_not_have_is_refused_with_the_wanted_one(data: object) -> None:
    with pytest.raises(BadTensor) as refused:
        array_from_json(spec("FP32", -1, 2), data)
    assert "FP32 of shape [-1, 2]" in refused.value.advice


def test_flat_data_takes_the_shape_that_is_said() -> None:
    assert array_from_json(spec("FP32", -1, 2), [1, 2, 3, 4], [2, 2]).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(BadTensor, match="does not hold 4 values"):
        array_from_json(spec("FP32", -1, 2), [1, 2, 3, 4], [3, 2])
    with pytest.raises(BadTensor, match="does not hold"):
        array_from_json(spec("FP32", -1, 2), [1, 2, 3, 4], [-2, -2])


def test_a_scalar_is_one_value() -> None:
    assert array_from_json(spec("INT64"), 16000).shape == ()
    assert array_from_json(spec("INT64"), [16000], []).shape == ()
    assert describe(spec("INT64")) == "one INT64 value (a scalar)"


def test_outputs_become_plain_values() -> None:
    assert values_of(np.array([[1.5, 2.5]], dtype=np.float32)) == [[1.5, 2.5]]
    assert values_of(np.array(["a", b"b"], dtype=object)) == ["a", "b"]
    assert values_of([{0: 0.5}, {0: 0.25}]) == [{0: 0.5}, {0: 0.25}]
    assert values_of([np.array([1]), np.array([2, 3])]) == [[1], [2, 3]]


def test_whole_numbers_of_64_bits_are_never_rounded() -> None:
    """numpy makes floats of 0 beside 2**64 - 1, and of a large number beside 1.0."""
    unsigned, signed = TensorSpec(name="x", datatype="UINT64", shape=[-1]), TensorSpec(name="x", datatype="INT64", shape=[-1])
    assert array_from_json(unsigned, [0, 2**64 - 1]).tolist() == [0, 2**64 - 1]
    assert array_from_json(unsigned, [2**63 + 1, 1.0]).tolist() == [2**63 + 1, 1]
    assert array_from_json(signed, [2**53 + 1, 1.0, -(2**63)]).tolist() == [2**53 + 1, 1, -(2**63)]
    for spec, values in ((unsigned, [-1, 2**64 - 1]), (unsigned, [0, 2**64]), (signed, [0, 2**63]), (signed, [1.0, -1e300])):
        with pytest.raises(BadTensor, match="out of range"):
            array_from_json(spec, values)
    with pytest.raises(BadTensor, match="not whole"):
        array_from_json(unsigned, [2**64 - 1, 0.5])
    for odd in ([1e300, math.inf], [1e300, math.nan]):
        with pytest.raises(BadTensor):
            array_from_json(signed, odd)
