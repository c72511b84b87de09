"""Large answers have the bytes that writing them at once would give."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.aml.answers import json_answer
from runtime.large_json.writing import LARGE_SIZE, any_large, flat_values, list_text, stdlib_list_text
from runtime.models.outputs import RunOutputs, Share
from runtime.tensors import values_of

dtypes = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.uint64, np.bool_, np.float16])
shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@given(dtypes.flatmap(lambda dtype: arrays.arrays(dtype, shapes)), st.integers(1, 30))
def test_pieces_make_the_whole_text(array: np.ndarray[Any, Any], size: int) -> None:
    assert list_text(array, size=size) == msgspec.json.encode(array.tolist())
    assert stdlib_list_text(array, size=size) == json.dumps(array.tolist()).encode()


def at_once(outputs: dict[str, Any]) -> bytes:
    """What the contract says, without regard to size."""
    values = {name: values_of(value) for name, value in outputs.items()}
    answer = next(iter(values.values())) if len(values) == 1 else values
    try:
        text = msgspec.json.encode(answer)
    except TypeError:
        return json.dumps(answer).encode()
    return json.dumps(answer).encode() if b"null" in text else text


LARGE = np.linspace(-1, 1, LARGE_SIZE + 8).astype(np.float32)
HOLED = np.where(np.arange(len(LARGE)) == LARGE_SIZE, np.nan, LARGE).reshape(8, -1)


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": LARGE},
        {"y": LARGE.reshape(2, 2, -1)},
        {"y": HOLED},
        {"null": LARGE},
        {"y": LARGE, "null": LARGE},
        {"y": LARGE, "label": np.array(["a", "é"], dtype=np.object_)},
        {"y": HOLED, "label": np.array(["a", "é"], dtype=np.object_)},
        {"y": LARGE, "label": np.array(["null"], dtype=np.object_)},
        {"y": LARGE, "few": np.array([np.inf])},
        {"y": LARGE, "maps": [{1: 0.25, 2: 0.75}]},
        {"é": LARGE, "maps": [{"a": float("nan")}]},
        {"y": np.arange(LARGE_SIZE + 1) % 2 == 0, "n": np.arange(3, dtype=np.uint64) + 2**63},
    ],
)
def test_score_answers_the_same_whatever_the_size(outputs: dict[str, Any]) -> None:
    assert any_large(outputs)
    assert json_answer(Share(RunOutputs(outputs))) == at_once(outputs)


@pytest.mark.parametrize("array", [LARGE, LARGE.reshape(4, -1), HOLED, np.arange(5), np.arange(LARGE_SIZE * 2)[::2]])
def test_infer_answers_the_same_whatever_the_size(array: np.ndarray[Any, Any]) -> None:
    assert msgspec.json.encode({"data": flat_values(array)}) == msgspec.json.encode({"data": array.ravel().tolist()})
