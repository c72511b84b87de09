"""When a shadow's answer is the module's: numbers by tolerance, everything else when it is equal, and never an exception."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.shadow.comparing import Answer, Comparison, Tolerance, compare

RULES = Tolerance(rtol=1e-3, atol=1e-4)


def asked(module: object, shadow: object, route: str = "score") -> Comparison:
    return compare(Answer(200, json.dumps(module).encode()), Answer(200, json.dumps(shadow).encode()), route, RULES)


@pytest.mark.parametrize(
    ("module", "shadow"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ([1.0, 2000.0], [1.00009, 2001.9]),
        ({"a": 1, "b": [True, None, "x"]}, {"b": [True, None, "x"], "a": 1.0}),
        ('{"result": [0.5]}', '{"result":  [0.50001]}'),
        ([float("nan"), float("inf")], [float("nan"), float("inf")]),
        ([[]], [[]]),
        (10**400, 10**400),
    ],
)
def test_the_same(module: object, shadow: object) -> None:
    assert asked(module, shadow).detail == ""


@pytest.mark.parametrize(
    ("module", "shadow", "detail"),
    [
        ([1.0, 2.0], [1.0, 2.01], "[1]: 2.01, the module's is 2.0"),
        ([0.0], [0.00011], "[0]: 0.00011, the module's is 0.0"),
        ({"label": "cat"}, {"label": "dog"}, "label: 'dog', the module's is 'cat'"),
        ([1, 2], [1], "it has 1 items, the module's answer 2"),
        ({"a": 1}, {"b": 1}, "it has b, the module's answer a"),
        ([True], [1], "[0]: 1, the module's is True"),
        ([1], ["1"], "[0]: '1', the module's is 1"),
        ([None], [0], "[0]: 0, the module's is None"),
        ([float("nan")], [1.0], "[0]: 1.0, the module's is nan"),
        ([float("inf")], [float("-inf")], "[0]: -inf, the module's is inf"),
        ('{"result": [1]}', '{"result": [2]}', "result[0]: 2, the module's is 1"),
        (10**400, 1.5, "1.5, the module's is 1000000000000000000000000000000000000000"),
    ],
)
def test_different(module: object, shadow: object, detail: str) -> None:
    assert asked(module, shadow).detail == detail


def test_the_worst_difference_is_found_behind_the_first_and_within_the_tolerance() -> None:
    assert asked([1.0, 5.0, 9.0], [1.5, 5.0, 7.0]).worst == 2.0
    assert asked([1000.0], [1000.5]) == Comparison("", 0.5)
    assert asked([1.0, 2.0], [1.0, 2.0]).worst == 0.0
    assert asked(["a"], ["b"]).worst is None


def test_of_an_infer_answer_the_outputs_count_by_name() -> None:
    module = {
        "model_name": "a",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]},
            {"name": "y", "datatype": "INT64", "shape": [1], "data": [4]},
        ],
    }
    shadow = {"model_name": "b", "model_version": "2", "outputs": [module["outputs"][1], module["outputs"][0]]}
    assert asked(module, shadow, "infer").detail == ""
    assert asked(module, shadow, "score").detail != ""
    other = {"outputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}, module["outputs"][1]]}
    assert asked(module, other, "infer").detail == "x.datatype: 'FP64', the module's is 'FP32'"


def binary(name: str, datatype: str, data: bytes, shape: list[int]) -> Answer:
    parameters = {"binary_data_size": len(data)}
    output = {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}
    head = json.dumps({"model_name": "m", "outputs": [output]}).encode()
    return Answer(200, head + data, len(head))


@pytest.mark.parametrize(
    ("datatype", "code"),
    [("FP32", "f"), ("FP64", "d"), ("FP16", "e"), ("INT8", "b"), ("INT64", "q"), ("UINT16", "H"), ("UINT64", "Q")],
)
def test_binary_tensors(datatype: str, code: str) -> None:
    one, other = (binary("y", datatype, struct.pack(f"<3{code}", 1, 2, last), [3]) for last in (3, 5))
    assert compare(one, one, "infer", RULES) == Comparison("", 0.0)
    found = compare(one, other, "infer", RULES)
    assert found.worst == 2.0
    assert found.detail.startswith("y.data[2]: 5")


def test_binary_truths_and_texts() -> None:
    truths = [binary("y", "BOOL", data, [2]) for data in (b"\x00\x01", b"\x00\x00")]
    assert compare(truths[0], truths[1], "infer", RULES).detail == "y.data[1]: False, the module's is True"
    texts = [binary("y", "BYTES", struct.pack("<I", len(word)) + word, [1]) for word in (b"cat", b"horse")]
    assert compare(texts[0], texts[1], "infer", RULES).detail == "y.data[0]: b'horse', the module's is b'cat'"


def test_binary_beside_json_is_compared_by_value() -> None:
    packed = binary("y", "FP32", struct.pack("<2f", 1.0, 2.0), [2])
    text = json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]}).encode()
    assert compare(packed, Answer(200, text), "infer", RULES).detail == ""


def test_refusals_are_the_same_whatever_they_say_and_other_statuses_are_not() -> None:
    assert compare(Answer(400, b"no"), Answer(400, b"nein"), "score", RULES) == Comparison()
    assert compare(Answer(400, b"no"), Answer(200, b"1"), "score", RULES).detail == "status 200, the module's is 400"


def test_bytes_that_are_no_json() -> None:
    assert compare(Answer(200, b"\x89PNG1"), Answer(200, b"\x89PNG1"), "score", RULES).detail == ""
    assert compare(Answer(200, b"\x89PNG1"), Answer(200, b"\x89PNG2"), "score", RULES).detail == "its bytes are others"
    deep = b"[" * 100_000 + b"]" * 100_000
    assert compare(Answer(200, deep), Answer(200, b"[]"), "score", RULES).detail != ""


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(values)
def test_every_answer_is_its_own(value: object) -> None:
    assert asked(value, json.loads(json.dumps(value))).detail == ""


@given(st.binary(max_size=60), st.binary(max_size=60), st.none() | st.integers(0, 70), st.sampled_from(["score", "infer"]))
def test_whatever_stands_in_answers_comparing_never_raises(one: bytes, other: bytes, length: int | None, route: str) -> None:
    found = compare(Answer(200, one, length), Answer(200, other, length), route, RULES)
    assert (found.detail == "") or one != other


@given(values, st.sampled_from(["score", "infer"]), st.sampled_from(["outputs", "name"]))
def test_nor_whatever_json(value: object, route: str, key: str) -> None:
    for shaped in (value, {key: value}, {"outputs": [value]}, {"outputs": [{"name": value}]}):
        text = json.dumps(shaped).encode()
        compare(Answer(200, text), Answer(200, b'{"outputs": []}'), route, RULES)
        compare(Answer(200, text, len(text)), Answer(200, b'{"outputs": []}', 15), route, RULES)
