"""Outputs as tensors: classification as Triton writes it, sequences of maps, what JSON cannot say."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import BadBody
from runtime.models.errors import ModelFailed, NoSharedMemory
from runtime.oip.answers import classified, tensor_of
from runtime.oip.messages import InferWanted, check_wanted


def test_classes_are_told_largest_first_with_their_index() -> None:
    rows = np.array([[1, 5, 10, 4], [3.25, 3.25, 0, -1]], dtype=np.float32)
    assert classified("y", rows, 2).tolist() == [["10.000000:2", "5.000000:1"], ["3.250000:0", "3.250000:1"]]
    assert classified("y", np.array([1, 5, 10, 4], dtype=np.uint8), 2).tolist() == ["10:2", "5:1"]
    assert classified("y", rows, 9).shape == (2, 4), "no more than there are"
    assert classified("y", np.zeros((0, 3), np.float32), 2).shape == (0, 2)
    assert classified("y", np.zeros((2, 2, 2), np.int64), 1).tolist() == [["0:0"], ["0:0"]]
    for array in (np.array(["a"], dtype=np.object_), np.float32(1.0)):
        with pytest.raises(BadBody, match="has no classes"):
            classified("y", np.asarray(array), 1)


@pytest.mark.parametrize("count", [-1, True, "2", 1.5, None, 10**9])
def test_a_number_of_classes_that_is_none_is_refused(count: object) -> None:
    with pytest.raises(BadBody, match="classification"):
        check_wanted([InferWanted("y", {"classification": count})])


def test_shared_memory_is_refused_as_such() -> None:
    with pytest.raises(NoSharedMemory):
        check_wanted([InferWanted("y", {"shared_memory_region": "r"})])


def test_sequences_become_tensors_or_the_models_failure() -> None:
    assert tensor_of("m", [{"a": 1.0, "b": 2.0}]).tolist() == [[1.0, 2.0]]
    assert tensor_of("m", [np.zeros(2), np.ones(2)]).shape == (2, 2)
    for odd in ([{"a": 1.0}, {"b": 1.0}], [np.zeros(2), np.zeros(3)]):
        with pytest.raises(ModelFailed):
            tensor_of("m", odd)
