"""Trees written as ONNX, scored by onnxruntime: every kind of branch, missing values, sums, links."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from packager.convert.inside.forest import Forest, Leaf, Split, Tree, forest_model
from packager.convert.inside.graphs import plain_session
from packager.convert.inside.precision import with_float_inputs

_NAN = float("nan")
_STUMP: Tree = [Split(0, 1, 2, missing_left=False, threshold=0.1), Leaf(-1.0), Leaf(1.0)]


def _answers(forest: Forest, rows: list[list[float]]) -> list[Any]:
    session = plain_session(forest_model(forest, "X").SerializeToString())
    return [np.ravel(one).tolist() for one in session.run(None, {"X": np.array(rows, dtype=np.float64)})]


def test_a_threshold_is_exact_in_fp64() -> None:
    above = float(np.nextafter(0.1, 1))
    forest = Forest(1, [(0, list(_STUMP))], [0.0])
    assert _answers(forest, [[0.1], [above], [_NAN]]) == [[-1.0, 1.0, 1.0]]
    narrow = plain_session(with_float_inputs(forest_model(forest, "X")).SerializeToString())
    # The FP32 next to 0.1 lies above it.
    assert narrow.run(None, {"X": np.array([[0.1]], dtype=np.float32)})[0].item() == 1.0


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (Split(0, 1, 2, missing_left=True, threshold=2.0), [-1.0, -1.0, 1.0, -1.0]),
        (Split(0, 1, 2, missing_left=False, threshold=2.0, strict=True), [-1.0, 1.0, 1.0, 1.0]),
        (Split(0, 1, 2, missing_left=False, members=(1.0, 5.0)), [-1.0, 1.0, -1.0, 1.0]),
        (Split(0, 1, 2, missing_left=True, members=(1.0, 5.0)), [-1.0, 1.0, -1.0, -1.0]),
        (Split(0, 1, 2, missing_left=True, members=(1.0,), others=(5.0,)), [-1.0, -1.0, 1.0, -1.0]),
    ],
    ids=["at most", "below", "among", "among, missing too", "unknown as missing"],
)
def test_branches(split: Split, expected: list[float]) -> None:
    forest = Forest(1, [(0, [split, Leaf(-1.0), Leaf(1.0)])], [0.0])
    assert _answers(forest, [[1.0], [2.0], [5.0], [_NAN]]) == [expected]


def test_what_counts_as_missing_and_as_whole() -> None:
    tree: Tree = [Split(0, 1, 2, missing_left=True, threshold=-9.0), Leaf(-1.0), Leaf(1.0)]
    zero = Forest(1, [(0, list(tree))], [0.0], zero_missing=frozenset({0}), zero_width=1e-35)
    assert _answers(zero, [[0.0], [1e-36], [1.0]]) == [[-1.0, -1.0, 1.0]]
    named = Forest(1, [(0, list(tree))], [0.0], missing=-999.0)
    assert _answers(named, [[-999.0], [-998.0], [1.0]]) == [[-1.0, -1.0, 1.0]]
    choice: Tree = [Split(0, 1, 2, missing_left=False, members=(2.0,)), Leaf(-1.0), Leaf(1.0)]
    assert _answers(Forest(1, [(0, list(choice))], [0.0], whole=frozenset({0})), [[2.9], [3.0], [-2.5]]) == [[-1.0, 1.0, 1.0]]


def test_sums_links_and_labels() -> None:
    two = Forest(1, [(0, list(_STUMP)), (0, list(_STUMP))], [0.5], "sigmoid", classes=np.array(["no", "yes"]))
    label, scores = _answers(two, [[0.0], [1.0]])
    assert label == ["no", "yes"]
    assert scores == pytest.approx(
        [1 - 1 / (1 + np.exp(1.5)), 1 / (1 + np.exp(1.5)), 1 / (1 + np.exp(2.5)), 1 - 1 / (1 + np.exp(2.5))]
    )
    three = Forest(1, [(2, list(_STUMP))], [0.0, 0.5, 0.0], "softmax", classes=np.array([4, 5, 6]))
    assert _answers(three, [[0.0], [1.0]])[0] == [5, 6]
    assert _answers(Forest(1, [(0, list(_STUMP))], [0.0], "exp"), [[1.0]])[0] == pytest.approx([np.e])
    assert _answers(Forest(1, [(0, list(_STUMP))], [1.0], "square"), [[1.0]]) == [[4.0]]
    assert _answers(Forest(1, [], [3.0]), [[1.0]]) == [[3.0]]
