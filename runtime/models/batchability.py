"""Whether the requests of a model may share a run: the same rows must answer alike alone and together. Measured, never guessed.

A leading axis without a fixed length proves nothing: real models attend across it, normalise over it or scale by its largest
value. Sound models differ by rounding, so answers are compared with a tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hedgerow.contracts.model import TensorSpec
from hedgerow.errors import HedgerowError
from runtime.models.onnx_model import OnnxModel
from runtime.tensors import Array

ATOL, RTOL = 1e-4, 1e-3
Outputs = Mapping[str, object]


def has_rows(specs: Sequence[TensorSpec]) -> bool:
    """Whether every input has a leading axis of any length; without that there is nothing to try."""
    return bool(specs) and all(spec.shape[:1] == [-1] for spec in specs)


def row_of(feeds: Mapping[str, Array], row: int) -> dict[str, Array]:
    """One row of inputs that all have rows."""
    return {name: array[row : row + 1] for name, array in feeds.items()}


def why_not_batchable(
    model: OnnxModel, feeds: Mapping[str, Array], alone: Sequence[Outputs], *, atol: float = ATOL, rtol: float = RTOL
) -> str:
    """Empty when rows together answer as rows alone do. ``alone`` are the answers to each row of ``feeds`` by itself."""
    if not has_rows(model.inputs):
        return "an input has no free leading length"
    if len(alone) < 2:
        return "one row cannot show it"
    try:
        together = model.attempt(feeds)
    except HedgerowError as problem:
        return f"several rows fail ({problem})"
    for name, value in together.items():
        if found := _difference([outputs[name] for outputs in alone], value, atol, rtol):
            return f"output {name!r} {found}"
    return ""


def _difference(alone: Sequence[object], together: object, atol: float, rtol: float) -> str:
    if not _has_length(together, len(alone)) or not all(_has_length(one, 1) for one in alone):
        return "has not one row for each input row"
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
