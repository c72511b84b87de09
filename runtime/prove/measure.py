"""The story of a proof: feed a model its rows alone and together, compare, time, and report what came out.

A leading dynamic axis proves nothing (reference: models that attend across it), so *batchable* is what its graph proves and what
was measured too: the same rows give the same answers alone, together and beside extreme ones, within tolerance (decisions/012).
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from msgspec import structs

from hedgerow.contracts.proof import LatencyFacts, ProofReport
from hedgerow.errors import HedgerowError
from runtime.models.batchability import has_rows, why_not_batchable, why_not_beside_extremes, why_not_proven
from runtime.models.loaded_model import LoadedModel
from runtime.models.sample_inputs import row_count
from runtime.models.staged_model import open_model
from runtime.models.warm_up import Wishes, is_empty
from runtime.oip.answers import tensor_of
from runtime.prove.vectors import Vectors, VectorsUnusable, made_up_vectors, read_vectors
from runtime.serving_plan import PlannedModel
from runtime.tensors import Array

_LATENCY_RUNS = 200
_LATENCY_BUDGET_S = 2.0
_WARM_UP_RUNS = 3
_DEFAULT_TOLERANCE = 1e-4

Outputs = dict[str, Array]
Raw = Mapping[str, object]


@dataclass(frozen=True)
class Comparison:
    """Largest absolute error over all numeric outputs (None: none was numeric), and what lies outside the tolerance."""

    max_abs_error: float | None
    problem: str = ""


def prove(planned: PlannedModel, vector_folders: Sequence[Path], wishes: Wishes | None = None) -> ProofReport:
    """Measure one model. Never raises for a model or vectors that are wrong: that is a report that did not pass."""
    wishes = wishes or Wishes()
    _forget_peak_memory()
    before = _memory_bytes("VmRSS")
    try:
        model = open_model(planned, threads=wishes.threads or 1, engine=wishes.engine)
        recorded = read_vectors(vector_folders)
        report = _recorded_proof(model, recorded) if recorded else _made_up_proof(model)
    except HedgerowError as problem:
        return _report(planned.name, passed=False, reason=problem.sentence())
    file_bytes = sum(file.stat().st_size for file in model.files)
    return structs.replace(report, memory_bytes=max(_memory_bytes("VmRSS") - before, 0), file_bytes=file_bytes)


def _recorded_proof(model: LoadedModel, vectors: Vectors) -> ProofReport:
    missing = [name for name in vectors.outputs if name not in {spec.name for spec in model.outputs}]
    if missing:
        raise VectorsUnusable(folder=model.name, problem=f"the model has no output {missing[0]!r}")
    alone = run_alone(model, vectors)
    parity = compare(vectors.outputs, stacked(model, alone), vectors.index.atol, vectors.index.rtol)
    latency = measure_latency(model, vectors)
    why_not = _why_not_batchable(model, vectors, alone, latency)
    return _report(
        model.name,
        passed=not parity.problem,
        reason=parity.problem or _not_batchable(why_not),
        rows=vectors.rows,
        max_abs_error=parity.max_abs_error,
        tolerance=vectors.index.atol,
        batchable=not why_not,
        latency=latency,
        **_provider(model),
    )


def _made_up_proof(model: LoadedModel) -> ProofReport:
    """No vectors: nothing can be compared (rows is 0), but it must run, and batchability and latency can be measured."""
    problem: HedgerowError | None = None
    last: tuple[Vectors, list[Raw]] | None = None
    for vectors in made_up_vectors(model.inputs, model.axis_names):
        try:
            alone: list[Raw] = [model.attempt(part) for part in vectors.parts(row_count(model.inputs))]
        except HedgerowError as failure:
            problem = problem or failure
            continue
        last = vectors, alone
        if not is_empty(alone[0]):
            break
    if last is None:
        # Made-up inputs that do not suit a model prove nothing against it.
        why = problem.sentence() if problem else "it has no inputs"
        return _report(model.name, passed=True, reason=f"loaded; made-up inputs do not suit it ({why})", **_provider(model))
    vectors, alone = last
    latency = measure_latency(model, vectors)
    why_not = _why_not_batchable(model, vectors, alone, latency)
    reason = "no recorded vectors: measured on made-up inputs, no answers were compared"
    return _report(
        model.name,
        passed=True,
        reason=f"{reason}; {_not_batchable(why_not)}" if why_not else reason,
        batchable=not why_not,
        latency=latency,
        **_provider(model),
    )


def _why_not_batchable(model: LoadedModel, vectors: Vectors, alone: Sequence[Raw], latency: LatencyFacts) -> str:
    """Empty when requests may share a run. A model that is not proven is told what was measured as well: often no difference."""
    measured = why_not_batchable(model, vectors.inputs, alone, atol=vectors.index.atol, rtol=vectors.index.rtol)
    if not has_rows(model.inputs):
        return measured
    if unproven := why_not_proven(model.row_verdict()):
        return f"{unproven}; measured: {measured or 'no difference'}"
    return measured or why_not_beside_extremes(model, vectors.inputs, alone, latency.p50_ms / 1000)


def run_alone(model: LoadedModel, vectors: Vectors) -> list[Raw]:
    """Every row by itself (or in the model's own fixed batch)."""
    model.check_names(vectors.inputs)
    return [model.run(part) for part in vectors.parts(row_count(model.inputs))]


def stacked(model: LoadedModel, parts: Sequence[Raw]) -> Outputs:
    """Their answers in order, one array for each output."""
    return {name: _joined([tensor_of(model.name, part[name]) for part in parts]) for name in parts[0]}


def _not_batchable(why_not: str) -> str:
    return f"not batchable: {why_not}" if why_not else ""


def _provider(model: LoadedModel) -> dict[str, Any]:
    return {"provider": model.provider, "refusals": [str(refusal) for refusal in model.refusals]}


def measure_latency(model: LoadedModel, vectors: Vectors) -> LatencyFacts:
    """One row alone, over different rows, after warm-up; bounded in number and in time."""
    feeds = vectors.parts(row_count(model.inputs))[:_LATENCY_RUNS]
    for number in range(_WARM_UP_RUNS):
        model.run(feeds[number % len(feeds)])
    taken: list[float] = []
    begun = perf_counter()
    while len(taken) < _LATENCY_RUNS and (perf_counter() - begun < _LATENCY_BUDGET_S or not taken):
        started = perf_counter()
        model.run(feeds[len(taken) % len(feeds)])
        taken.append((perf_counter() - started) * 1000)
    return LatencyFacts(p50_ms=round(float(np.percentile(taken, 50)), 4), p99_ms=round(float(np.percentile(taken, 99)), 4))


def compare(expected: Mapping[str, Array], found: Mapping[str, Array], atol: float, rtol: float) -> Comparison:
    """As numpy.isclose, NaN equal to NaN; text must be equal."""
    largest: float | None = None
    problems: list[str] = []
    for name, wanted in expected.items():
        got = found[name]
        if got.shape != wanted.shape and got.size == wanted.size:
            # A column of shape [rows, 1] and one of [rows] are the same answers.
            got = got.reshape(wanted.shape)
        if got.shape != wanted.shape:
            problems.append(f"output {name!r} has shape {list(got.shape)}, {list(wanted.shape)} was expected")
        elif _is_numeric(wanted) and _is_numeric(got):
            error, outside = _numeric_difference(wanted, got, atol, rtol)
            largest = error if largest is None else max(largest, error)
            if outside:
                problems.append(f"output {name!r} differs in {outside} of {wanted.size} values, by up to {error:.3g}")
        elif outside := int(np.sum(wanted.astype(np.object_) != got.astype(np.object_))):
            problems.append(f"output {name!r} differs in {outside} of {wanted.size} values")
    return Comparison(largest, "; ".join(problems))


def _is_numeric(array: Array) -> bool:
    return array.dtype.kind in "biuf"


def _numeric_difference(wanted: Array, got: Array, atol: float, rtol: float) -> tuple[float, int]:
    left, right = wanted.astype(np.float64), got.astype(np.float64)
    close = np.isclose(right, left, atol=atol, rtol=rtol, equal_nan=True)
    with np.errstate(invalid="ignore"):
        errors = np.abs(right - left)
    # Two NaN or two equal infinities agree; one alone is an error without a size.
    sizes = np.where(close & ~np.isfinite(errors), 0.0, np.nan_to_num(errors, nan=np.inf))
    worst = float(np.max(sizes, initial=0.0))
    return min(worst, float(np.finfo(np.float64).max)), int(np.sum(~close))


def _joined(parts: list[Array]) -> Array:
    """Scalars become a column. Parts of different lengths (text generated, boxes found) cannot be one array."""
    try:
        return np.concatenate([part if part.ndim else part.reshape(1) for part in parts])
    except ValueError:
        return np.array([str(part.tolist()) for part in parts], dtype=np.object_)


def _forget_peak_memory() -> None:
    """Start the kernel's high-water mark anew, so that a report is about its own model."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        # Not everywhere allowed; the peak then includes what was proven before.
        return


def _memory_bytes(line_start: str) -> int:
    """A line of the kernel's account of this process: VmRSS now, VmHWM the most that it was."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{line_start}:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _report(model: str, *, passed: bool, reason: str, **measured: Any) -> ProofReport:  # noqa: ANN401 - fields of ProofReport
    values: dict[str, Any] = {
        "rows": 0,
        "max_abs_error": None,
        "tolerance": _DEFAULT_TOLERANCE,
        "batchable": False,
        "latency": None,
        "provider": "",
        **measured,
    }
    return ProofReport(model=model, passed=passed, reason=reason, peak_memory_bytes=_memory_bytes("VmHWM"), **values)
