"""One request for a run of a model, several that share one, and the thread on which they run (model_lane.py decides when)."""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from time import perf_counter
from typing import Protocol

from runtime.errors import ScoringTimeout
from runtime.large_json.writing import any_large
from runtime.models.batching import cut, merge
from runtime.models.onnx_model import ModelRun, OnnxModel
from runtime.tensors import Array

Outputs = Mapping[str, object]


class Caller(Protocol):
    """Whoever waits for a job."""

    gone: bool


class Job:
    """One request for one run. ``prepare`` makes the inputs on the model's thread, for bodies too large for the loop's.

    ``finish`` makes the answer there too, behind ``prepare`` and of large outputs; otherwise ``done`` does it.
    Afterwards exactly one of ``outputs`` and ``error`` is set, and ``done(job)`` is called on the loop's thread.
    """

    __slots__ = (
        "asked_at",
        "caller",
        "done",
        "error",
        "feeds",
        "finish",
        "finished_at",
        "key",
        "leads",
        "merged",
        "outputs",
        "prepare",
        "read_s",
        "result",
        "rows",
        "run_rows",
        "size_bytes",
        "started_at",
        "wanted",
    )

    def __init__(
        self,
        caller: Caller,
        done: Callable[[Job], None],
        *,
        feeds: dict[str, Array] | None = None,
        prepare: Callable[[], dict[str, Array]] | None = None,
        finish: Callable[[Outputs], object] | None = None,
        wanted: tuple[str, ...] = (),
    ) -> None:
        self.caller, self.done = caller, done
        self.feeds, self.prepare, self.finish, self.wanted = feeds, prepare, finish, wanted
        self.key: object = None
        self.rows = 1
        self.size_bytes = 0
        self.asked_at = perf_counter()
        self.started_at = self.finished_at = 0.0
        # What ``prepare`` took.
        self.read_s = 0.0
        # How many requests shared the run.
        self.merged = 1
        # Of those that did, one counts the run.
        self.leads = True
        # Rows of the whole run; 0 when nobody shared it.
        self.run_rows = 0
        self.outputs: Outputs | None = None
        # What ``finish`` made of the outputs, where that was done on the model's thread.
        self.result: object = None
        self.error: BaseException | None = None

    def may_share(self, model: OnnxModel) -> None:
        """Say what this job may share a run with: same lengths behind the rows, same outputs; and how much it brings."""
        rows: int | None = None
        lengths = []
        if len(self.feeds or ()) != len(model.inputs):
            # It replaces a value of the model's own.
            self.rows = model.rows(self.feeds or {})
            return
        for spec in model.inputs:
            array = (self.feeds or {})[spec.name]
            if not array.ndim or (rows is not None and array.shape[0] != rows):
                self.rows = model.rows(self.feeds or {})
                return
            rows = array.shape[0]
            lengths.append(array.shape[1:])
            self.size_bytes += array.nbytes
        # No rows is a request of its own: what a model makes of it is not to be mixed with others.
        if rows:
            self.rows = rows
            self.key = (*lengths, self.wanted)

    @property
    def queued_s(self) -> float:
        return max(self.started_at - self.asked_at - self.read_s, 0.0)

    @property
    def ran_s(self) -> float:
        return max(self.finished_at - self.started_at, 0.0)


class Batch:
    """Jobs that are run together."""

    __slots__ = ("_cancelled", "_run", "answered", "cancelled_at", "inseparable", "jobs", "model", "started_at")

    def __init__(self, model: OnnxModel, jobs: list[Job], started_at: float) -> None:
        self.model, self.jobs, self.started_at = model, jobs, started_at
        self.answered = False
        self.cancelled_at = 0.0
        # The outputs of a run had not one row for each row that went in.
        self.inseparable = False
        self._cancelled = False
        self._run: ModelRun | None = None

    def cancel(self) -> None:
        """Ask the run to end at its next operator."""
        self._cancelled = True
        run = self._run
        if run is not None:
            run.cancel()

    def execute(self) -> None:
        """On a model thread: fill in every job's outputs or error; never raises."""
        self._execute(self.jobs)

    def write_large(self) -> None:
        """Also on a model thread: make results of outputs that would hold up the loop; never raises."""
        for job in self.jobs:
            if job.finish is not None and job.result is None and job.outputs is not None and any_large(job.outputs):
                try:
                    job.result = job.finish(job.outputs)
                except Exception as problem:  # noqa: BLE001 - an answer like every other
                    job.error = problem

    def _execute(self, jobs: list[Job]) -> None:
        if len(jobs) > 1 and not self.inseparable:
            if not self._together(jobs):
                # One of them is bad, or it is the model: each fails, or not, by itself. Halves find a bad one in few runs.
                middle = len(jobs) // 2
                self._execute(jobs[:middle])
                self._execute(jobs[middle:])
            return
        for job in jobs:
            self._alone(job)

    def _together(self, jobs: list[Job]) -> bool:
        started = perf_counter()
        try:
            outputs = self._outputs(merge([job.feeds or {} for job in jobs]), jobs[0].wanted)
        except Exception:  # noqa: BLE001 - whose request it was shows when they run alone
            return False
        parts = cut(outputs, [job.rows for job in jobs])
        if parts is None:
            self.inseparable = True
            return False
        finished = perf_counter()
        for job, part in zip(jobs, parts, strict=True):
            job.started_at, job.finished_at, job.outputs = started, finished, part
            job.merged, job.leads = len(jobs), job is jobs[0]
        jobs[0].run_rows = sum([job.rows for job in jobs])
        return True

    def _alone(self, job: Job) -> None:
        job.started_at = perf_counter()
        was_prepared = job.prepare is not None
        try:
            if job.prepare is not None:
                job.feeds = job.prepare()
                # It knows the request, and that its body.
                job.prepare = None
                begun = perf_counter()
                job.read_s = begun - job.started_at
                job.started_at = begun
            job.outputs = self._outputs(job.feeds or {}, job.wanted)
            job.finished_at = perf_counter()
            if job.finish is not None and was_prepared:
                job.result = job.finish(job.outputs)
        # A model's failure and a caller's bad values alike are answers; anything else is mapped by the face.
        except Exception as problem:  # noqa: BLE001 - see above
            job.error = problem
            job.finished_at = perf_counter()

    def _outputs(self, feeds: Mapping[str, Array], wanted: tuple[str, ...]) -> Outputs:
        if self._cancelled:
            raise ScoringTimeout(timeout_ms=0)
        self._run = run = ModelRun(self.model, feeds, wanted)
        return run.call()


class ModelThread(threading.Thread):
    """Runs batches one after another. Daemon: a stuck run must not keep the process from ending."""

    def __init__(self, name: str, loop: AbstractEventLoop, ended: Callable[[Batch], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._loop, self._ended = loop, ended
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self.take = self._batches.put

    def end(self) -> None:
        self._batches.put(None)

    def run(self) -> None:
        while (batch := self._batches.get()) is not None:
            batch.execute()
            batch.write_large()
            self._loop.call_soon_threadsafe(self._ended, batch)
