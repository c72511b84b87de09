"""Inputs that are each right alone and do not go together."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.models.uneven_inputs import unevenness

TWO, THREE = np.zeros((2, 4), np.float32), np.zeros((3, 1), np.float32)


@pytest.mark.parametrize(
    ("axis_names", "said"),
    [
        ({"x": ["N", ""], "y": ["N", ""]}, "inputs 'x' and 'y' disagree about the axis N: 2 and 3"),
        ({"x": ["", "k"], "y": ["", "k"]}, "inputs 'x' and 'y' disagree about the axis k: 4 and 1"),
        ({"x": ["", ""], "y": ["", ""]}, "the inputs differ in their number of rows: 'x' has 2, 'y' has 3"),
        ({"x": ["N", ""], "y": ["M", ""]}, None),
        ({"x": ["N", ""], "y": ["", ""]}, None),
    ],
)
def test_what_does_not_go_together_is_named(axis_names: dict[str, list[str]], said: str | None) -> None:
    assert unevenness({"x": TWO, "y": THREE}, axis_names) == said


def test_scalars_and_equal_inputs_have_nothing_to_disagree_about() -> None:
    names = {"x": ["N", ""], "y": ["N", ""], "z": []}
    assert unevenness({"x": TWO, "y": TWO, "z": np.zeros((), np.float32)}, names) is None
