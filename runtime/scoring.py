"""The story: what is served becomes ready, scores one request after another, and says how it is. Knows no HTTP.

    load()                     models into memory, the script's init(); afterwards `state` is "ready"
    score_model(model, feeds)  one execution: wait for a turn (lane.py), run, count (metrics.py), tell (telemetry.py)
    score_script(text, …)      the same for the user's run()

The two contract faces (aml.py, oip.py) translate to and from this and share everything below them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from hedgerow.contracts.model import TensorSpec
from hedgerow.errors import Bug, HedgerowError
from runtime.errors import AmbiguousScore, NotReady, Overloaded, ScoringTimeout, UnknownModel, UnknownModelVersion
from runtime.lane import Call, Lane, Ran, Work
from runtime.metrics import Board, Failure, ModelKey
from runtime.onnx_model import OnnxModel
from runtime.script import Script
from runtime.serving_plan import ServingPlan
from runtime.settings import RuntimeSettings
from runtime.telemetry import JsonText, Recorder
from runtime.tensors import Array

_log = logging.getLogger("hedgerow.runtime")

T = TypeVar("T")
State = Literal["loading", "ready", "stuck", "draining"]

# How long onnxruntime may take to notice that a run was cancelled. Python code of a user never notices.
_ONNX_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may happen at once in one worker, and for how long."""

    max_concurrent: int
    max_queue: int
    queue_wait_s: float
    timeout_s: float

    @classmethod
    def of(cls, settings: RuntimeSettings) -> Limits:
        """The container's limits, shared out between its workers."""
        return cls(
            max_concurrent=-(-settings.max_concurrent // settings.workers),
            max_queue=-(-settings.max_queue // settings.workers),
            queue_wait_s=settings.queue_wait_ms / 1000,
            timeout_s=settings.timeout_ms / 1000,
        )


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """A scoring that went well. ``ran_s`` is the time in the model or in run() alone."""

    value: T
    rows: int
    queued_s: float
    ran_s: float


class Scoring:
    """Everything that one worker serves. Made after the fork; :meth:`load` may take long and runs beside the HTTP face."""

    def __init__(self, plan: ServingPlan, limits: Limits, board: Board, recorder: Recorder, *, threads: int = 1) -> None:
        self._plan, self._limits, self._board, self._recorder = plan, limits, board, recorder
        self._threads = threads
        self._make_way: Callable[[], None] = _stay
        self._loaded = threading.Event()
        self._draining = False
        self._models: dict[ModelKey, OnnxModel] = {}
        self._script: Script | None = None
        self._model_lane = _lane("model", limits, threads=limits.max_concurrent, patience_s=_ONNX_PATIENCE_S)
        # One call at a time, always on the same thread, as under azmlinfsrv's one-request workers.
        self._script_lane = _lane("script", limits, threads=1, patience_s=0.0)

    # How it is --------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        if self._script_lane.is_stuck or self._model_lane.is_stuck:
            return "stuck"
        if self._draining:
            return "draining"
        return "ready" if self._loaded.is_set() else "loading"

    @property
    def has_script(self) -> bool:
        """Whether a script answers /score; known before it is loaded."""
        return self._plan.script is not None

    def when_stuck(self, make_way: Callable[[], None]) -> None:
        """``make_way`` is called, before the late request is answered, once this worker can never score again."""
        self._make_way = make_way

    def drain(self) -> None:
        """No longer ready for new requests; those that come all the same are still answered."""
        self._draining = True

    # Becoming ready ---------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load everything of the plan. Raises the start errors of runtime.errors, which say whose fault it is."""
        for planned in self._plan.models:
            model = OnnxModel(
                planned.name, planned.file, version=planned.version, threads=self._threads, batchable=planned.batchable
            )
            self._warm_up(model)
            self._models[planned.name, planned.version] = model
        if self._plan.script is not None:
            script = Script(self._plan.script.file, self._plan.script.source)
            self._script_lane.run(Call(script.load), None)
            self._script = script
        self._loaded.set()

    def _warm_up(self, model: OnnxModel) -> None:
        """The first run allocates; better now than in the first request. Zeros do not suit every model: that is fine."""
        try:
            model.run(model.smallest_feeds())
        except HedgerowError as problem:
            _log.debug("model %s was not warmed up: %s", model.name, problem)

    # Scoring ----------------------------------------------------------------------------------------------------------

    def model(self, name: str, version: str | None = None) -> OnnxModel:
        """A served model; its newest version when none is named.

        Raises UnknownModel, UnknownModelVersion, or NotReady when it is still loading after the queue wait.
        """
        self.check_known(name, version)
        self._wait_until_loaded()
        return self._models[name, version or max(self.versions(name), key=int)]

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are served, loaded yet or not."""
        return [planned.version for planned in self._plan.models if planned.name == name]

    def check_known(self, name: str, version: str | None) -> None:
        """Raises UnknownModel or UnknownModelVersion."""
        known = self.versions(name)
        if not known:
            raise UnknownModel(model=name, known=", ".join(planned.name for planned in self._plan.models) or "none")
        if version is not None and version not in known:
            raise UnknownModelVersion(version=version, model=name, known=", ".join(known))

    def only_model(self) -> OnnxModel:
        """The one model that /score means when there is no script. Raises AmbiguousScore or NotReady."""
        names = sorted({planned.name for planned in self._plan.models})
        if len(names) != 1:
            raise AmbiguousScore(known=", ".join(names))
        return self.model(names[0])

    @property
    def title(self) -> str:
        """What this server is called in its own documents."""
        names = sorted({planned.name for planned in self._plan.models})
        return names[0] if len(names) == 1 else "ML service"

    def score_inputs(self) -> Sequence[TensorSpec]:
        """The inputs that /score takes; none where a script decides or several models are served."""
        if self.has_script or len({planned.name for planned in self._plan.models}) != 1:
            return ()
        return self.only_model().inputs

    def score_model(
        self, model: OnnxModel, feeds: Mapping[str, Array], wanted: Sequence[str] | None = None
    ) -> Outcome[dict[str, object]]:
        """Run ``model`` once. Raises what OnnxModel.start_run and Lane.run raise, and NotReady."""
        work = model.start_run(feeds, wanted)
        rows = model.rows(feeds)
        ran = self._counted((model.name, model.version), self._model_lane, work)
        self._board.scored((model.name, model.version), rows, ran.queued_s, ran.ran_s)
        self._recorder.scored(rows, (ran.queued_s + ran.ran_s) * 1000, ran.value)
        return Outcome(ran.value, rows, ran.queued_s, ran.ran_s)

    def score_script(self, text: str, headers: Mapping[str, str]) -> Outcome[str]:
        """Run the script once; the value is JSON text. Raises ScriptRaised, ScoringTimeout, Overloaded or NotReady."""
        self._wait_until_loaded()
        script = self._script
        if script is None:
            raise Bug(what="a script is asked for where none is served")
        ran = self._counted(None, self._script_lane, Call(lambda: script.call(text, headers)))
        self._board.add("hedgerow_scored_rows_total")
        self._recorder.scored(1, (ran.queued_s + ran.ran_s) * 1000, JsonText(ran.value))
        return Outcome(ran.value, 1, ran.queued_s, ran.ran_s)

    def _wait_until_loaded(self) -> None:
        """A worker that replaces another accepts at once; its first requests wait for the model instead of failing."""
        if not self._loaded.wait(self._limits.queue_wait_s):
            raise NotReady(state="loading")

    def _counted(self, model: ModelKey | None, lane: Lane, work: Work[T]) -> Ran[T]:
        self._board.add("hedgerow_in_flight")
        try:
            if self.state == "stuck":
                raise NotReady(state="stuck in a request that does not end; its worker is being replaced")
            return lane.run(work, self._limits.timeout_s)
        except Exception as problem:
            self._recorder.failed()
            if model is not None:
                self._board.failed(model, _failure(problem))
            if isinstance(problem, ScoringTimeout) and self.state == "stuck":
                self._make_way()
            raise
        finally:
            self._board.add("hedgerow_in_flight", -1)


def _stay() -> None:
    """Where nobody waits to take over."""


def _lane(name: str, limits: Limits, *, threads: int, patience_s: float) -> Lane:
    return Lane(name, threads=threads, queue_length=limits.max_queue, queue_wait_s=limits.queue_wait_s, patience_s=patience_s)


def _failure(problem: Exception) -> Failure:
    """In Triton's words."""
    if isinstance(problem, Overloaded | NotReady):
        return "REJECTED"
    return "CANCELED" if isinstance(problem, ScoringTimeout) else "BACKEND"
