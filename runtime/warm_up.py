"""What a model is like, found out by running it once it is loaded: may its requests be merged, does that pay, how many threads.

Batchability is a measurement, never a guess from axis names: the same rows, alone and together, must answer alike within the
tolerance of reference answers. An image says what was measured when it was built; otherwise it is measured here, in a fraction
of a second. Merging must also pay: on a CPU it makes trees and small nets several times cheaper a row, and large convolutions
slower.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from hedgerow.errors import HedgerowError
from runtime.cores import core_count
from runtime.onnx_model import OnnxModel
from runtime.sample_inputs import made_up_feeds
from runtime.tensors import Array

_log = logging.getLogger("hedgerow.runtime")

ROWS = 8
# Below this a second thread on the same model gains nothing: Python, not the model, is what takes the time.
_ONE_THREAD_S = 0.0005
_BUDGET_S = 0.04
_MOST_RUNS = 20
# A first run that takes this long is not repeated for the sake of a measurement.
_SLOW_S = 0.1
# A row in a batch has to cost clearly less than a row alone.
_PAYS = 0.8
# A run on the event loop holds up every other connection for as long as it takes.
_INLINE_S = 0.000_05
_INLINE_ROWS = 16
_ATOL, _RTOL = 1e-4, 1e-3


@dataclass(frozen=True)
class Tried:
    """``merges``: requests that wait may share a run. ``threads``: runs at once that make sense. Times in seconds.

    ``inline_rows``: requests of up to so many rows take so little that handing them to a thread would cost more.
    """

    merges: bool
    threads: int
    run_s: float | None = None
    why_not: str = ""
    inline_rows: int = 0


def try_out(model: OnnxModel, batchable: bool | None) -> Tried:
    """Run ``model`` on made-up rows. ``batchable`` is what its image says; None measures it.

    Made-up inputs do not suit every model (indices out of range, lengths too short): then nothing is merged.
    """
    cores = core_count()
    for feeds in made_up_feeds(model.inputs, ROWS):
        try:
            started = perf_counter()
            alone = _alone(model, feeds, 0)
            first_s = perf_counter() - started
        except HedgerowError as problem:
            _log.debug("model %s was not tried with these inputs: %s", model.name, problem)
            continue
        if first_s > _SLOW_S:
            return Tried(merges=False, threads=max(1, cores // model.threads), run_s=first_s, why_not="a run takes long")
        run_s = _timed(lambda: model.run(_row(feeds, 0)))  # noqa: B023 - called before the next round
        threads = 1 if run_s < _ONE_THREAD_S else max(1, cores // model.threads)
        why_not = _why_not_merge(model, feeds, alone, run_s, batchable)
        inline_rows = _INLINE_ROWS if not why_not and run_s < _INLINE_S and is_steady(model) else 0
        tried = Tried(merges=not why_not, threads=threads, run_s=run_s, why_not=why_not, inline_rows=inline_rows)
        _log.info("model %s takes %.3f ms a run; %s", model.name, run_s * 1000, why_not or "what waits is scored together")
        return tried
    return Tried(merges=False, threads=cores, why_not="made-up inputs do not suit it")


def is_steady(model: OnnxModel) -> bool:
    """Whether the rows alone decide how long a run takes: no loops in the graph, no free length behind the rows."""
    return not model.facts.loops and all(-1 not in spec.shape[1:] for spec in model.inputs)


def _why_not_merge(
    model: OnnxModel, feeds: Mapping[str, Array], first: Mapping[str, object], run_s: float, batchable: bool | None
) -> str:
    """Empty when requests may share a run and that pays."""
    if batchable is False:
        return "its image says that rows in a batch answer differently"
    if not model.inputs or any(spec.shape[:1] != [-1] for spec in model.inputs):
        return "it is not batchable: an input has no free leading length"
    if batchable is None and (problem := differs(model, feeds, first)):
        return f"it is not batchable: {problem}"
    try:
        together_s = _timed(lambda: model.run(feeds))
    except HedgerowError as problem:
        return f"it is not batchable: several rows fail ({problem})"
    return "" if together_s / ROWS < run_s * _PAYS else "a batch takes as long as its rows one by one"


def differs(model: OnnxModel, feeds: Mapping[str, Array], first: Mapping[str, object]) -> str:
    """How the answers for all rows together differ from those for each row alone; empty when they do not."""
    try:
        together = model.run(feeds)
        for row in range(ROWS):
            alone = first if row == 0 else _alone(model, feeds, row)
            for name, value in together.items():
                if not _same(alone[name], value, row):
                    return f"output {name!r} of a row alone and in a batch differ"
    except HedgerowError as problem:
        return f"several rows fail ({problem})"
    return ""


def _same(alone: object, together: object, row: int) -> bool:
    if isinstance(together, list) and isinstance(alone, list):
        return len(together) == ROWS and len(alone) == 1 and _close_items(alone[0], together[row])
    if not isinstance(together, np.ndarray) or not isinstance(alone, np.ndarray) or not together.ndim or not alone.ndim:
        return False
    if len(together) != ROWS or len(alone) != 1 or alone.shape[1:] != together.shape[1:]:
        return False
    return _close(alone[0], together[row])


def _close_items(left: object, right: object) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and _close(np.array(list(left.values())), np.array([right[key] for key in left]))
    return _close(np.asarray(left), np.asarray(right))


def _close(left: Array, right: Array) -> bool:
    if left.dtype.kind in "fiub" and right.dtype.kind in "fiub":
        return bool(np.allclose(left, right, rtol=_RTOL, atol=_ATOL, equal_nan=True))
    return bool(np.array_equal(left, right))


def _alone(model: OnnxModel, feeds: Mapping[str, Array], row: int) -> Mapping[str, object]:
    return model.run(_row(feeds, row))


def _row(feeds: Mapping[str, Array], row: int) -> dict[str, Array]:
    """One row. An input without rows (a scalar) stays as it is; a fixed batch is taken whole."""
    return {name: array[row : row + 1] if array.ndim and len(array) == ROWS else array for name, array in feeds.items()}


def _timed(run: Callable[[], object]) -> float:
    """The quickest of some runs, in seconds."""
    best = float("inf")
    begun = perf_counter()
    for _ in range(_MOST_RUNS):
        started = perf_counter()
        run()
        best = min(best, perf_counter() - started)
        if perf_counter() - begun > _BUDGET_S / 2:
            break
    return best
