"""Whether the requests of a model may share a run: the same rows must answer alike alone and together. Proven, and measured.

A leading axis without a fixed length says nothing: real models attend across it, normalise over it or scale by its largest
value. So the graph is followed first (rows/verdict.py): a model in which a row could reach another's answer is out, whatever was
measured, and so is one that nobody can be sure of. What is proven is measured all the same, with rows alone, together and beside
extreme ones, because kernels have bugs and proofs have too. Why it is so: docs/decisions/012.

Sound models differ by rounding (another order of sums for another number of rows, up to 3e-5 in real ones), so answers are
compared with a tolerance, never bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

import numpy as np

from hedgerow.contracts.model import TensorSpec
from hedgerow.errors import HedgerowError
from runtime.models.loaded_model import LoadedModel
from runtime.models.rows.verdict import RowVerdict
from runtime.models.sample_inputs import extreme_rows
from runtime.tensors import Array

ATOL, RTOL = 1e-4, 1e-3
Outputs = Mapping[str, object]
# Batches that are tried, and where in them the extreme row stands.
_SIZES = (3, 2, 7, 256)
_MOST_BYTES = 2**20
_FAIL = "several rows fail"
# What the extreme rows may take: a model of microseconds meets them all, one of milliseconds the first few.
_TRIAL_S, _TRIAL_RUNS = 0.01, 10


def has_rows(specs: Sequence[TensorSpec]) -> bool:
    """Whether every input has a leading axis of any length; without that there is nothing to try."""
    return bool(specs) and all(spec.shape[:1] == [-1] for spec in specs)


def row_of(feeds: Mapping[str, Array], row: int) -> dict[str, Array]:
    """One row of inputs that all have rows."""
    return {name: array[row : row + 1] for name, array in feeds.items()}


def why_not_proven(verdict: RowVerdict) -> str:
    """Empty when the graph is proven to keep rows apart."""
    if verdict.state == "proven":
        return ""
    return verdict.why if verdict.state == "mixes" else f"its graph does not show that rows are kept apart ({verdict.why})"


def why_not_beside_extremes(model: LoadedModel, feeds: Mapping[str, Array], alone: Sequence[Outputs], run_s: float) -> str:
    """Empty when the rows of ``feeds`` answer beside rows of extreme values as they do alone, and the same each time.

    Only for models that are proven: in others a large number may be how often or how long something is done. ``run_s`` is what a
    row takes; what one extreme row answers is not compared, only whether it changes what others do.
    """
    operators = model.facts.operators
    divides = operators is None or not operators.isdisjoint(("Div", "Mod"))
    ends = perf_counter() + _TRIAL_S + _TRIAL_RUNS * run_s
    sizes = _sizes(feeds, run_s)
    for number, extreme in enumerate(extreme_rows(row_of(feeds, 0), divides=divides)):
        if perf_counter() > ends:
            break
        size = sizes[number % len(sizes)]
        place = (0, size - 1, size // 2)[number % 3]
        found = _why_not_beside(model, feeds, alone, extreme.feeds, size, place)
        # What a model does not take by itself either has been refused, not mixed.
        if found and not (found.startswith(_FAIL) and fails(model, extreme.feeds)):
            return f"{found} when a row beside it is {extreme.name}"
    return ""


def fails(model: LoadedModel, feeds: Mapping[str, Array]) -> bool:
    """Whether the model refuses these inputs, or fails on them."""
    try:
        model.attempt(feeds)
    except HedgerowError:
        return True
    return False


def _sizes(feeds: Mapping[str, Array], run_s: float) -> list[int]:
    row_bytes = sum(array[:1].nbytes for array in feeds.values())
    return [size for size in _SIZES if size <= 2 or (size * row_bytes <= _MOST_BYTES and size * run_s <= 10 * _TRIAL_S)]


def _why_not_beside(
    model: LoadedModel, feeds: Mapping[str, Array], alone: Sequence[Outputs], extreme: Mapping[str, Array], size: int, place: int
) -> str:
    """``size`` rows, with the extreme one at ``place`` and those of ``feeds`` in turn around it."""
    others = [number for number in range(size) if number != place]
    chosen = [number % len(alone) for number in range(size)]
    batch = {name: array[chosen] for name, array in feeds.items()}
    for name, array in extreme.items():
        batch[name][place] = array[0]
    try:
        together = model.attempt(batch)
    except HedgerowError as problem:
        return f"{_FAIL} ({problem})"
    for name, value in together.items():
        if not _has_length(value, size):
            return f"output {name!r} has not one row for each input row"
        left = value[others] if isinstance(value, np.ndarray) else [value[number] for number in others]  # type: ignore[index]  # arrays and lists only, see _has_length
        if found := _difference([alone[chosen[number]][name] for number in others], left, ATOL, RTOL):
            return f"output {name!r} {found}"
    return ""


def why_not_batchable(
    model: LoadedModel, feeds: Mapping[str, Array], alone: Sequence[Outputs], *, atol: float = ATOL, rtol: float = RTOL
) -> str:
    """Empty when rows together answer as rows alone do. ``alone`` are the answers to each row of ``feeds`` by itself."""
    if not has_rows(model.inputs):
        return "an input has no free leading length"
    if len(alone) < 2:
        return "one row cannot show it"
    try:
        together = model.attempt(feeds)
    except HedgerowError as problem:
        return f"{_FAIL} ({problem})"
    for name, value in together.items():
        if found := _difference([outputs[name] for outputs in alone], value, atol, rtol):
            return f"output {name!r} {found}"
    return ""


def _difference(alone: Sequence[object], together: object, atol: float, rtol: float) -> str:
    if not _has_length(together, len(alone)) or not all(_has_length(one, 1) for one in alone):
        return "has not one row for each input row"
    if isinstance(together, np.ndarray) and all(
        isinstance(one, np.ndarray) and one.shape[1:] == together.shape[1:] for one in alone
    ):
        worst = _distance(np.concatenate([np.asarray(one) for one in alone]), together, atol, rtol)
        return f"differs between rows alone and together, by up to {worst:.3g}" if worst else ""
    worst = 0.0
    for number, one in enumerate(alone):
        left, right = one[0], together[number]  # type: ignore[index]  # arrays and lists only, see _has_length
        if isinstance(left, dict) or isinstance(right, dict):
            if not isinstance(left, dict) or not isinstance(right, dict) or left.keys() != right.keys():
                return "differs between rows alone and together"
            left, right = list(left.values()), [right[key] for key in left]
        worst = max(worst, _distance(np.asarray(left), np.asarray(right), atol, rtol))
    return f"differs between rows alone and together, by up to {worst:.3g}" if worst else ""


def _has_length(value: object, length: int) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.ndim) and len(value) == length
    return isinstance(value, list) and len(value) == length


def _distance(left: Array, right: Array, atol: float, rtol: float) -> float:
    """The largest difference outside the tolerance; 0 when there is none, infinite where numbers cannot say it."""
    if left.shape != right.shape:
        return float("inf")
    if left.dtype.kind not in "fiub" or right.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(left, right) else float("inf")
    first, second = left.astype(np.float64), right.astype(np.float64)
    close = np.isclose(first, second, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.abs(first - second), nan=np.inf, posinf=np.inf)[~close].max())
