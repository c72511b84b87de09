"""Compares two models' answers to the same rows: which rows differ, by how much, and whether labels changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # numpy of several generations reads this file; their array types do not fit one annotation


@dataclass(frozen=True)
class Compared:
    """``differing`` marks rows outside the tolerance, ``ties`` rows whose label hangs on less than the tolerance."""

    rows: int
    max_abs_error: float
    max_rel_error: float
    labels_changed: int
    differing: Array
    ties: Array

    @property
    def agrees(self) -> bool:
        return not bool(self.differing.any())


def compare(wanted: Sequence[Array], found: Sequence[Array], atol: float, rtol: float) -> Compared:
    """Answers in the same order; first axis = rows. Numbers as numpy.isclose with NaN equal to NaN, all else exactly.

    A changed label counts only where the scores beside it do not tie within the tolerance: there either label is right.
    """
    rows = len(wanted[0])
    ties = _ties(wanted, atol, rtol)
    differing, changed = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    largest, relative = 0.0, 0.0
    for ours, theirs in zip(found, wanted, strict=False):
        if ours.size != theirs.size:
            return Compared(rows, float("inf"), float("inf"), 0, np.ones(rows, dtype=bool), ties)
        left, right = ours.reshape(rows, -1), theirs.reshape(rows, -1)
        if theirs.dtype.kind == "f":
            outside, absolute, share = _numeric(left, right, atol, rtol)
            differing |= outside
            largest, relative = max(largest, absolute), max(relative, share)
        else:
            changed |= (_texts(left) != _texts(right)).any(axis=1) & ~ties
    return Compared(rows, largest, relative, int(changed.sum()), differing | changed, ties)


def tolerance_words(atol: float, rtol: float) -> str:
    return f"{atol:g} + {rtol:g} of the value"


def changed_labels(wanted: Sequence[Array], found: Sequence[Array]) -> Array | None:
    """A mark for each row whose label (an output that is no float, or the largest of several scores) is another; or None."""
    for ours, theirs in zip(found, wanted, strict=False):
        if theirs.dtype.kind != "f" and ours.size == theirs.size == len(theirs):
            return (_texts(ours.reshape(len(theirs), -1)) != _texts(theirs.reshape(len(theirs), -1))).any(axis=1)
    for ours, theirs in zip(found, wanted, strict=False):
        if theirs.ndim == 2 and theirs.shape[1] > 1 and ours.shape == theirs.shape:
            return ours.argmax(axis=1) != theirs.argmax(axis=1)
    return None


def rows_stand_alone(ask: Callable[[Array], list[Array]], together: Sequence[Array], rows: int) -> bool:
    """Whether some rows asked one by one get the answers that they got together: some models look at all rows of a call.

    ``ask`` takes the numbers of the rows to ask for.
    """
    for row in sorted({0, rows // 2, rows - 1}):
        alone = ask(np.array([row]))
        if any(len(ours) != 1 for ours in alone):
            return False
        if not compare([answer[row : row + 1] for answer in together], alone, 1e-3, 1e-2).agrees:
            return False
    return True


def _numeric(left: Array, right: Array, atol: float, rtol: float) -> tuple[Array, float, float]:
    ours, theirs = left.astype(np.float64), right.astype(np.float64)
    close = np.isclose(ours, theirs, atol=atol, rtol=rtol, equal_nan=True)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(ours - theirs)
    errors = np.where(close & ~np.isfinite(errors), 0.0, np.nan_to_num(errors, nan=np.finfo(np.float64).max))
    shares = errors / np.maximum(np.abs(np.nan_to_num(theirs)), 1e-6)
    return ~close.all(axis=1), float(errors.max(initial=0.0)), float(shares.max(initial=0.0))


def _ties(wanted: Sequence[Array], atol: float, rtol: float) -> Array:
    """Where any label (there may be several targets, each with its scores) hangs on less than the tolerance."""
    rows = len(wanted[0])
    found = np.zeros(rows, dtype=bool)
    if all(answer.dtype.kind == "f" for answer in wanted) and len(wanted) < 2:
        return found
    for scores in wanted:
        if scores.dtype.kind != "f" or scores.ndim > 2:
            continue
        table = scores.reshape(rows, -1)
        if table.shape[1] == 1:
            found |= np.abs(table[:, 0]) <= atol
        elif table.shape[1]:
            two = np.sort(table, axis=1)[:, -2:]
            found |= np.abs(two[:, 1] - two[:, 0]) <= atol + rtol * np.abs(two[:, 1])
        if all(answer.ndim < 2 or answer.shape[1] == 1 for answer in wanted if answer.dtype.kind != "f"):
            break  # one label, whose scores come first
    return found


def _texts(labels: Array) -> Array:
    """Labels as text: 1, 1.0 and numpy's own integers are the same label."""
    if labels.dtype.kind in "iub":
        return labels.astype(np.int64).astype(str)
    return np.array([[_text(value) for value in row] for row in labels.tolist()], dtype=object).reshape(labels.shape)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
