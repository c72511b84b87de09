"""What a model is like, found out by running it once it is loaded: may its requests be merged, does that pay, how many threads.

Batchability is proven from the graph and measured (batchability.py, rows/). An image may say what was found when it was built;
otherwise it is found here, in a fraction of a second. Merging must also pay: on a CPU it makes trees and small nets several times
cheaper a row, and large convolutions slower. Cores are shared out between runs (throughput), unless latency is asked for and a
run really gets quicker by threads inside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from hedgerow.errors import HedgerowError
from runtime.cores import core_count
from runtime.large_json.writing import LARGE_SIZE
from runtime.memory import give_back
from runtime.models.batchability import fails, has_rows, row_of, why_not_batchable, why_not_beside_extremes, why_not_proven
from runtime.models.loaded_model import LoadedModel
from runtime.models.providers import Engine, parse_providers
from runtime.models.sample_inputs import made_up_feeds
from runtime.models.staged_model import open_model
from runtime.serving_plan import PlannedModel
from runtime.settings import Batching, Prefer, RuntimeSettings
from runtime.tensors import Array

_log = logging.getLogger("hedgerow.runtime.models")

ROWS = 8
# Below this a second thread on the same model gains nothing: Python, not the model, is what takes the time.
_ONE_THREAD_S = 0.0005
_BUDGET_S = 0.02
_MOST_RUNS = 20
# A first run that takes this long is not repeated for the sake of a measurement.
_SLOW_S = 0.1
# A row in a batch has to cost clearly less than a row alone, and a run with more threads clearly less than with one.
_PAYS = 0.8
# Runs shorter than this get no quicker by threads inside them.
_THREADS_HELP_S = 0.001
# A run on the event loop holds up every other connection for as long as it takes; handing it to a thread costs as much again, and
# a thread waits for a busy loop with every batch (docs/benchmarks.md).
_INLINE_S = 0.000_05
_INLINE_RUN_S = 0.000_7
_INLINE_ROWS = 256
# With these operators, and rows of fixed lengths, the number of rows alone decides how long a run takes. Everything else (loops,
# branches, outputs as long as a value says, text that is taken apart, functions of the model's own) is run on a thread.
_STEADY_NAMES = (
    "Add Sub Mul Div Neg Abs Sign Reciprocal Pow Sqrt Exp Log Floor Ceil Round Clip Sum Mean Max Min "
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceL2 ReduceSumSquare "
    "And Or Xor Not Equal Less LessOrEqual Greater GreaterOrEqual Where ArgMax ArgMin "
    "Relu LeakyRelu Elu Selu Gelu Erf Tanh Sigmoid HardSigmoid Softplus Softmax LogSoftmax "
    "MatMul Gemm Conv AveragePool MaxPool GlobalAveragePool BatchNormalization LayerNormalization "
    "Cast CastLike Constant Identity Dropout Shape QuantizeLinear DequantizeLinear "
    "Reshape Flatten Transpose Squeeze Unsqueeze Concat Split Slice Gather GatherElements "
    "TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor LinearClassifier LinearRegressor "
    "SVMClassifier SVMRegressor ZipMap LabelEncoder OneHotEncoder Imputer Scaler Normalizer "
    "Binarizer ArrayFeatureExtractor FeatureVectorizer"
)
_STEADY = frozenset(_STEADY_NAMES.split())


@dataclass(frozen=True)
class Wishes:
    """What whoever runs the server wants of every model. ``threads`` inside one run; 0: found out."""

    threads: int = 0
    prefer: Prefer = "throughput"
    batching: Batching = "auto"
    engine: Engine = Engine()  # noqa: RUF009 - it is frozen itself

    @classmethod
    def of(cls, settings: RuntimeSettings) -> Wishes:
        """What the settings say. Raises ProvidersUnusable."""
        engine = Engine(parse_providers(settings.providers), settings.arena)
        return cls(settings.threads, settings.prefer, settings.batching, engine)


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


def load_and_try(planned: PlannedModel, wishes: Wishes) -> tuple[LoadedModel, Tried]:
    """A model in memory, with as many threads inside a run as suit it, and what trying it showed. Raises as OnnxModel does."""
    model, tried = _load_and_try(planned, wishes)
    if tried.run_s is not None and tried.run_s < _SLOW_S and has_rows(model.inputs):
        # The rows that were run together would be paid for as long as the model is loaded.
        with suppress(HedgerowError):
            model.shrink()
    # Opening a model takes as much again beside it for a moment.
    give_back()
    return model, tried


def _load_and_try(planned: PlannedModel, wishes: Wishes) -> tuple[LoadedModel, Tried]:
    cores = core_count()
    model = open_model(planned, threads=wishes.threads or 1, engine=wishes.engine)
    tried = try_out(model, planned.batchable, wishes.batching)
    if wishes.threads or wishes.prefer != "latency" or cores < 2 or model.example is None:
        return model, tried
    if tried.run_s is None or tried.run_s < _THREADS_HELP_S:
        return model, tried
    wider = open_model(planned, threads=cores, engine=wishes.engine)
    wider.example, wider.example_outputs = model.example, model.example_outputs
    run_s = _timed(lambda: wider.attempt(wider.example or {}))
    if run_s > tried.run_s * _PAYS:
        _log.info("model %s gets no quicker by threads inside a run", planned.name)
        return model, tried
    _log.info("model %s takes %.3f ms a run with %d threads inside it", planned.name, run_s * 1000, cores)
    return wider, replace(tried, threads=1, run_s=run_s)


def try_out(model: LoadedModel, batchable: bool | None, batching: Batching = "auto") -> Tried:
    """Run ``model`` on made-up rows, and keep one that it takes as its example.

    ``batchable`` is what its image says; None measures it. Made-up inputs do not suit every model (indices out of range, lengths
    too short): then nothing is merged.
    """
    several = max(1, core_count() // model.threads)
    rows = ROWS if has_rows(model.inputs) else 1
    spare: tuple[dict[str, Array], dict[str, Array], dict[str, object]] | None = None
    for feeds in made_up_feeds(model.inputs, rows, model.axis_names):
        # A copy: the model keeps it, and a view would keep all rows.
        example = {name: array.copy() for name, array in row_of(feeds, 0).items()} if rows > 1 else feeds
        try:
            started = perf_counter()
            first = model.attempt(example)
            first_s = perf_counter() - started
        except HedgerowError as problem:
            _log.debug("model %s was not tried with these inputs: %s", model.name, problem)
            continue
        model.example, model.example_outputs = example, first
        if is_empty(first):
            continue
        if first_s > _SLOW_S:
            return Tried(merges=False, threads=several, run_s=first_s, why_not="a run takes long")
        if rows > 1 and batching != "off" and _holds_wide_indices(feeds) and fails(model, feeds):
            # The first row held an index that the model knows, another row one that it does not.
            spare = spare or (feeds, example, first)
            continue
        return _measured(model, feeds, first, batchable, batching, several)
    if spare is None:
        return Tried(merges=False, threads=several, why_not="made-up inputs do not suit it")
    feeds, model.example, model.example_outputs = spare
    return _measured(model, feeds, spare[2], batchable, batching, several)


def _holds_wide_indices(feeds: Mapping[str, Array]) -> bool:
    return any(array.dtype.kind in "iu" and array.size and int(array.max()) > 1 for array in feeds.values())


def is_empty(outputs: Mapping[str, object]) -> bool:
    """Whether a run brought nothing to compare: an input that is too short for a single frame or window."""
    return any(isinstance(value, np.ndarray | list) and np.size(value) == 0 for value in outputs.values())


def _numbers_in(outputs: Mapping[str, object]) -> int:
    """How many values there are to write; sequences of maps have several in each."""
    sizes = [
        value.size if isinstance(value, np.ndarray) else sum(len(row) if isinstance(row, dict) else 1 for row in value)
        for value in outputs.values()
        if isinstance(value, np.ndarray | list)
    ]
    return sum(sizes)


def is_steady(model: LoadedModel) -> bool:
    """Whether the number of rows alone decides how long a run takes."""
    operators = model.facts.operators
    if operators is None or not operators <= _STEADY or model.optional:
        return False
    return all(spec.shape and -1 not in spec.shape[1:] for spec in model.inputs)


def _measured(
    model: LoadedModel,
    feeds: Mapping[str, Array],
    first: Mapping[str, object],
    batchable: bool | None,
    batching: Batching,
    several: int,
) -> Tried:
    run_s = _timed(lambda: model.attempt(model.example or {}))
    why_not, together_s = _why_not_merge(model, feeds, first, run_s, batchable, batching)
    # Eight rows in the time of two: then so many as stay below a millisecond, to run and to write down.
    quick = run_s < _INLINE_S and together_s < 2 * _INLINE_S
    most_rows = min(_INLINE_ROWS, int(ROWS * _INLINE_RUN_S / max(together_s, 1e-9)), LARGE_SIZE // max(_numbers_in(first), 1))
    inline_rows = most_rows if not why_not and quick and is_steady(model) else 0
    threads = 1 if run_s < _ONE_THREAD_S else several
    _log.info("model %s takes %.3f ms a run; %s", model.name, run_s * 1000, why_not or "what waits is scored together")
    return Tried(merges=not why_not, threads=threads, run_s=run_s, why_not=why_not, inline_rows=inline_rows)


def _why_not_merge(
    model: LoadedModel,
    feeds: Mapping[str, Array],
    first: Mapping[str, object],
    run_s: float,
    batchable: bool | None,
    batching: Batching,
) -> tuple[str, float]:
    """Empty when requests may share a run and that pays; and what a run of all rows takes."""
    if batching == "off":
        return "merging is switched off", 0.0
    if not has_rows(model.inputs):
        return "it is not batchable: an input has no free leading length", 0.0
    try:
        together_s = _timed(lambda: model.attempt(feeds))
        if batching != "on" and together_s / ROWS > run_s * _PAYS:
            return "a batch takes as long as its rows one by one", together_s
        if batchable is None:
            problem = _why_not_batchable(model, feeds, first, run_s)
            return f"it is not batchable: {problem}" if problem else "", together_s
    except HedgerowError as problem:
        return f"it is not batchable: several rows fail ({problem})", 0.0
    if not batchable:
        return "its image says that rows in a batch answer differently", together_s
    # Whoever wrote that answers for operators that nobody knows, not for those that are known to mix rows.
    verdict = model.row_verdict()
    return f"it is not batchable: {verdict.why}" if verdict.state == "mixes" else "", together_s


def _why_not_batchable(model: LoadedModel, feeds: Mapping[str, Array], first: Mapping[str, object], run_s: float) -> str:
    if problem := why_not_proven(model.row_verdict()):
        return problem
    alone = [first, *[model.attempt(row_of(feeds, row)) for row in range(1, ROWS)]]
    return why_not_batchable(model, feeds, alone) or why_not_beside_extremes(model, feeds, alone, run_s)


def _timed(run: Callable[[], object]) -> float:
    """The quickest of some runs, in seconds."""
    best = float("inf")
    begun = perf_counter()
    for _ in range(_MOST_RUNS):
        started = perf_counter()
        run()
        best = min(best, perf_counter() - started)
        if perf_counter() - begun > _BUDGET_S:
            break
    return best
