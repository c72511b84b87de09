"""One request for a run of a model, several that share one, and the thread on which they run (model_lane.py decides when)."""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from time import perf_counter
from typing import Protocol

from hedgerow.errors import Bug, HedgerowError
from runtime.errors import ScoringTimeout
from runtime.models.batching import merge
from runtime.models.loaded_model import LoadedModel
from runtime.models.onnx_model import ModelRun
from runtime.models.outputs import Outputs, RunOutputs, Share
from runtime.models.row_form import RowForm, Values
from runtime.tensors import Array


class Caller(Protocol):
    """Whoever waits for a job. ``started_at`` is when its request was whole (perf_counter's)."""

    gone: bool
    started_at: float


class Run:
    """One run of a model. Times are perf_counter's; ``rows`` and ``requests`` are of all who shared it."""

    __slots__ = ("_took_ms", "counted", "finished_at", "requests", "rows", "started_at")

    def __init__(self, started_at: float, requests: int, rows: int) -> None:
        self.started_at, self.requests, self.rows = started_at, requests, rows
        self.finished_at = 0.0
        # For whoever counts runs: each only once, however many shared it.
        self.counted = False
        self._took_ms = ""

    @property
    def took_ms(self) -> str:
        """How long it took, in words for a header: the same for all who shared it."""
        if not self._took_ms:
            self._took_ms = f"{max(self.finished_at - self.started_at, 0.0) * 1000:.3f}"
        return self._took_ms


_NO_RUN = Run(0.0, 1, 0)


class Job:
    """One request for one run. ``answer`` makes its ``result`` of its share of the outputs.

    Afterwards exactly one of ``result`` and ``error`` is set, and ``done(job)`` is called on the loop's thread.
    """

    __slots__ = (
        "answer",
        "asked_at",
        "caller",
        "done",
        "error",
        "feeds",
        "key",
        "outputs",
        "result",
        "rows",
        "run",
        "size_bytes",
        "values",
        "wanted",
    )

    # Reading the body of a LargeJob takes time; see there.
    read_s = 0.0

    def __init__(
        self,
        caller: Caller,
        done: Callable[[Job], None],
        answer: Callable[[Share], object],
        *,
        feeds: dict[str, Array] | None = None,
        wanted: tuple[str, ...] = (),
    ) -> None:
        self.caller, self.done, self.answer, self.feeds, self.wanted = caller, done, answer, feeds, wanted
        # Rows that are no array yet (row_form.py).
        self.values: Values | None = None
        self.key: object = None
        self.rows = 1
        self.size_bytes = 0
        self.run = _NO_RUN
        self.outputs: Share | None = None
        self.result: object = None
        self.error: BaseException | None = None
        self.asked_at = perf_counter()

    def settle(self) -> None:
        """Make the result, unless there is one or an error already; never raises."""
        if self.result is None and self.error is None and self.outputs is not None:
            try:
                self.result = self.answer(self.outputs)
            except Exception as problem:  # noqa: BLE001 - an answer like every other
                self.error = without_frames(problem)

    def bring(self, form: RowForm, values: Values, rows: int) -> None:
        """Rows instead of arrays. They may share a run with others."""
        self.values, self.rows = values, rows
        self.size_bytes = rows * form.row_bytes
        self.key = ((form.width,), self.wanted)

    def may_share(self, model: LoadedModel) -> None:
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

    # What logs and traces tell of it (exchange.Work).

    @property
    def started_at(self) -> float:
        return self.run.started_at

    @property
    def finished_at(self) -> float:
        return self.run.finished_at

    @property
    def merged(self) -> int:
        """How many requests shared the run."""
        return self.run.requests

    @property
    def queued_s(self) -> float:
        return max(self.run.started_at - self.asked_at - self.read_s, 0.0)

    @property
    def ran_s(self) -> float:
        return max(self.run.finished_at - self.run.started_at, 0.0)


class LargeJob(Job):
    """A request too large for the loop: ``prepare(job)`` makes its inputs, and its answer is made, on the model's thread."""

    __slots__ = ("prepare", "read_s")

    def __init__(
        self,
        caller: Caller,
        done: Callable[[Job], None],
        answer: Callable[[Share], object],
        prepare: Callable[[Job], dict[str, Array]],
        *,
        wanted: tuple[str, ...] = (),
    ) -> None:
        super().__init__(caller, done, answer, wanted=wanted)
        self.prepare: Callable[[Job], dict[str, Array]] | None = prepare
        self.read_s = 0.0


class Batch:
    """Jobs that are run together. ``brief``: nobody will want to end the run before its time."""

    __slots__ = ("_brief", "_cancelled", "_run", "answered", "cancelled_at", "inseparable", "jobs", "model", "started_at")

    def __init__(self, model: LoadedModel, jobs: list[Job], started_at: float, *, brief: bool = False) -> None:
        self.model, self.jobs, self.started_at = model, jobs, started_at
        self.answered = False
        self.cancelled_at = 0.0
        # The outputs of a run had not one row for each row that went in.
        self.inseparable = False
        self._brief = brief
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

    def settle_large(self) -> None:
        """On a model thread, too: the answers that would hold up the loop."""
        for job in self.jobs:
            if isinstance(job, LargeJob) or (job.outputs is not None and job.outputs.large):
                job.settle()

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
        rows = sum([job.rows for job in jobs])
        run = Run(perf_counter(), len(jobs), rows)
        try:
            outputs = RunOutputs(self._outputs(feeds_of(self.model, jobs), jobs[0].wanted))
        except Exception:  # noqa: BLE001 - whose request it was shows when they run alone
            return False
        if not outputs.separable(rows):
            self.inseparable = True
            return False
        run.finished_at = perf_counter()
        start = 0
        for job in jobs:
            stop = start + job.rows
            job.run, job.outputs = run, Share(outputs, start, stop)
            start = stop
        return True

    def _alone(self, job: Job) -> None:
        job.run = run = Run(perf_counter(), 1, job.rows)
        try:
            if isinstance(job, LargeJob) and job.prepare is not None:
                job.feeds = job.prepare(job)
                # It knows the request, and that its body.
                job.prepare = None
                begun = perf_counter()
                job.read_s = begun - run.started_at
                run.started_at = begun
            outputs = self._outputs(feeds_of(self.model, [job]), job.wanted)
            run.finished_at = perf_counter()
            job.outputs = Share(RunOutputs(outputs))
        # A model's failure and a caller's bad values alike are answers; anything else is mapped by the face.
        except Exception as problem:  # noqa: BLE001 - see above
            job.error = without_frames(problem)
            run.finished_at = perf_counter()

    def _outputs(self, feeds: Mapping[str, Array], wanted: tuple[str, ...]) -> Outputs:
        if self._cancelled:
            raise ScoringTimeout(timeout_ms=0)
        if self._brief and not self.model.run_entries:
            return self.model.run(feeds, wanted)
        self._run = run = ModelRun(self.model, feeds, wanted)
        return run.call()


def without_frames(problem: Exception) -> Exception:
    """An error as an answer, nothing of where it was raised: frames know their job, which knows its error.

    As such a circle a refused body would take its megabytes until the garbage collector comes. What nobody foresaw keeps its
    frames for the log.
    """
    if isinstance(problem, HedgerowError) and not isinstance(problem, Bug):
        # A parser's error, whose words it tells, has frames too.
        for found in (problem, *problem.fields.values()):
            if isinstance(found, BaseException):
                found.__traceback__ = found.__context__ = found.__cause__ = None
    return problem


def feeds_of(model: LoadedModel, jobs: Sequence[Job]) -> dict[str, Array]:
    """One set of inputs with the rows of all ``jobs``, in order."""
    form = model.row_form
    if form is not None:
        brought = [job.values for job in jobs if job.values is not None]
        if len(brought) == len(jobs):
            return {form.name: form.array(brought)}
        if brought:
            return merge([{form.name: form.array([job.values])} if job.values is not None else job.feeds or {} for job in jobs])
    return merge([job.feeds or {} for job in jobs]) if len(jobs) > 1 else jobs[0].feeds or {}


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
            batch.settle_large()
            self._loop.call_soon_threadsafe(self._ended, batch)
            # Its inputs and outputs need not wait for the next one.
            del batch
