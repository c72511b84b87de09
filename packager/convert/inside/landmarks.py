"""Rows that a trained scikit-learn model carries in itself: training rows, what encoders and bins know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .agreement import Array

_ROWS = 128
_AS_ROWS = ("_fit_X", "X_train_", "X_fit_", "support_vectors_")
_AS_COLUMNS = ("categories_", "bin_edges_", "quantiles_")


def known_rows(steps: Iterable[Any], features: int) -> Array | None:
    """[n, features] FP64 of the first step that knows any; None when none does."""
    for step in steps:
        if hasattr(step, "steps"):
            continue  # the pipeline itself, whose steps follow
        for inner in (step, *(part for part in getattr(step, "estimators_", []) if not isinstance(part, np.ndarray))):
            found = _rows(inner, features)
            if found is not None:
                return found
        if getattr(step, "n_features_in_", features) != features or not hasattr(step, "inverse_transform"):
            return None
    return None


def whole_columns(steps: Iterable[Any], features: int) -> frozenset[int]:
    """Columns that the first step takes for numbers of categories: converters cut off the fraction, scikit-learn does not know
    such a number."""
    for step in steps:
        categories = getattr(step, "categories_", None)
        if isinstance(categories, list) and len(categories) == features:
            found = [np.asarray(column) for column in categories]
            return frozenset(index for index, column in enumerate(found) if column.dtype.kind in "biuf" and _is_whole(column))
    return frozenset()


def _is_whole(column: Array) -> bool:
    return bool(np.all(column[np.isfinite(column)] == np.round(column[np.isfinite(column)])))


def _rows(step: Any, features: int) -> Array | None:  # noqa: ANN401 - any estimator
    for name in _AS_ROWS:
        rows = getattr(step, name, None)
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == features and rows.dtype.kind in "biuf":
            return _some(rows.astype(np.float64))
    for name in _AS_COLUMNS:
        columns = getattr(step, name, None)
        if name == "quantiles_" and isinstance(columns, np.ndarray) and columns.ndim == 2:
            columns = list(columns.T)
        if isinstance(columns, list | np.ndarray) and len(columns) == features:
            return _combined([np.asarray(column) for column in columns])
    counts = getattr(step, "n_categories_", None)
    if isinstance(counts, np.ndarray) and counts.shape == (features,):
        return _combined([np.arange(count) for count in counts.tolist()])
    return None


def _some(rows: Array) -> Array:
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), _ROWS)).astype(int)]


def _combined(columns: list[Array]) -> Array | None:
    """Each column's values in turn, beside those of the others."""
    if any(column.dtype.kind not in "biuf" or not len(column) for column in columns):
        return None
    lines = np.arange(_ROWS)
    return np.column_stack(
        [column[(lines * (index + 1) + index) % len(column)].astype(np.float64) for index, column in enumerate(columns)]
    )
