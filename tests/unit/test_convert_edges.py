"""Where an answer jumps is found by asking, to the last bit of FP32."""

from __future__ import annotations

from typing import Any

import numpy as np

from packager.convert.inside.edges import edge_rows

_POOL = np.random.default_rng(1).standard_normal((64, 3)) * 10


def _stairs(rows: Any) -> list[Any]:
    """Jumps where the scaled second column passes 0.3."""
    return [(rows[:, 1] * 0.7 + 0.01 > 0.3).astype(np.float64)]


def test_both_sides_of_a_jump_are_neighbours() -> None:
    found = edge_rows(_stairs, _POOL, np.random.default_rng(2))
    assert len(found) > 4
    values = np.unique(found[:, 1][np.abs(found[:, 1] - 0.29 / 0.7) < 1e-5]).astype(np.float32)
    assert len(values) == 2
    assert values[1] == np.nextafter(values[0], np.float32(np.inf))
    assert np.array_equal(found, found.astype(np.float32).astype(np.float64))


def test_what_does_not_jump_has_no_edges() -> None:
    assert len(edge_rows(lambda rows: [rows.sum(axis=1)], _POOL, np.random.default_rng(2))) == 0


def test_labels_alone_jump_but_not_beside_scores() -> None:
    def labels(rows: Any) -> Any:
        return np.where(rows[:, 0] > 1, "much", "little")

    assert len(edge_rows(lambda rows: [labels(rows)], _POOL, np.random.default_rng(2))) > 0
    assert len(edge_rows(lambda rows: [labels(rows), rows[:, 0]], _POOL, np.random.default_rng(2))) == 0


def test_a_model_that_refuses_such_rows_has_no_edges() -> None:
    def refuse(rows: Any) -> list[Any]:
        raise ValueError("only whole numbers")

    assert len(edge_rows(refuse, _POOL, np.random.default_rng(2))) == 0
