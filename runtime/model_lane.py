"""One model's lane: a queue, a few threads that run the model, and batches made of what had to wait.

Everything but the runs themselves happens on the event loop's thread, so there is nothing to lock:

    submit(job)      to an idle thread at once, else into the queue; a full queue refuses.
                     Small requests for a model of microseconds are run on the loop itself, all that came with one look at the
                     connections together: handing them over would cost several times the run
    a run ends       its jobs are answered, and the thread takes the next batch of what waits by then
    tick(now)        whoever waited longer than the queue wait is refused; a run over its time-out is answered and cancelled

A run that does not end after it was cancelled makes the lane *stuck*: a thread cannot be killed, so its process must go.
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import perf_counter
from typing import Protocol

from runtime.admission import Admission
from runtime.batching import BatchLimits, cut, merge, take_batch
from runtime.errors import Overloaded, ScoringTimeout
from runtime.metrics import ModelCounters
from runtime.onnx_model import ModelRun, OnnxModel
from runtime.tensors import Array

Outputs = Mapping[str, object]
# Larger bodies are read, and their answers written, on the model's thread: the loop must not stand still for milliseconds.
INLINE_BYTES = 32_768


class Caller(Protocol):
    """Whoever waits for a job."""

    gone: bool


class Job:
    """One request for one run. ``prepare`` makes the inputs on the model's thread, for bodies too large for the loop's.

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
        "result",
        "rows",
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
        # How many requests shared the run.
        self.merged = 1
        # Of those that did, one counts the run.
        self.leads = True
        self.outputs: Outputs | None = None
        # What ``finish`` made of the outputs, where it was given.
        self.result: object = None
        self.error: BaseException | None = None

    def may_share(self, model: OnnxModel) -> None:
        """Say what this job may share a run with: same lengths behind the rows, same outputs; and how much it brings."""
        rows: int | None = None
        lengths = []
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
        return max(self.started_at - self.asked_at, 0.0)

    @property
    def ran_s(self) -> float:
        return max(self.finished_at - self.started_at, 0.0)


class Batch:
    """Jobs that are run together."""

    __slots__ = ("_cancelled", "_run", "answered", "cancelled_at", "jobs", "model", "started_at")

    def __init__(self, model: OnnxModel, jobs: list[Job], started_at: float) -> None:
        self.model, self.jobs, self.started_at = model, jobs, started_at
        self.answered = False
        self.cancelled_at = 0.0
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
        jobs = self.jobs
        if len(jobs) > 1 and self._together(jobs):
            return
        # Also the way for a batch that failed as a whole: then each fails, or not, by itself.
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
            return False
        finished = perf_counter()
        for job, part in zip(jobs, parts, strict=True):
            job.started_at, job.finished_at, job.outputs = started, finished, part
            job.merged, job.leads = len(jobs), job is jobs[0]
        return True

    def _alone(self, job: Job) -> None:
        job.started_at = perf_counter()
        try:
            if job.prepare is not None:
                job.feeds = job.prepare()
                job.started_at = perf_counter()
            job.outputs = self._outputs(job.feeds or {}, job.wanted)
            job.finished_at = perf_counter()
            if job.finish is not None:
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


@dataclass(frozen=True)
class LaneLimits:
    """``patience_s`` is how long a cancelled run may go on before the lane counts as stuck."""

    queue_wait_s: float
    timeout_s: float
    patience_s: float = 5.0
    batch: BatchLimits = field(default_factory=BatchLimits)


class ModelLane:
    """Bounded, timed runs of one model. All methods belong to the loop's thread."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        model: OnnxModel,
        limits: LaneLimits,
        admission: Admission,
        counters: ModelCounters,
        *,
        threads: int,
        inline_rows: int = 0,
    ) -> None:
        self.model, self.counters = model, counters
        self._inline_rows = inline_rows
        self._inline: deque[Job] = deque()
        self._loop, self._limits, self._admission = loop, limits, admission
        self._most_threads = threads
        self._idle: list[_ModelThread] = []
        self._threads = 0
        self._waiting: deque[Job] = deque()
        self._running: dict[Batch, _ModelThread] = {}
        self._closed = False
        self.stuck = False

    @property
    def pending(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def submit(self, job: Job) -> None:
        """Run it as soon as there is a turn. Raises Overloaded."""
        if job.key is not None and job.rows <= self._inline_rows:
            if not self._inline:
                self._loop.call_soon(self._run_inline)
            self._inline.append(job)
            return
        if not self._waiting and self._admission.may_run() and (thread := self._free_thread()) is not None:
            self._admission.begin(1)
            self._start(thread, [job])
            return
        self._admission.enqueue()
        self._waiting.append(job)

    def tick(self, now: float) -> None:
        """Refuse who waited too long, answer what runs too long. ``now`` is perf_counter's."""
        while self._waiting and now - self._waiting[0].asked_at >= self._limits.queue_wait_s:
            self._refuse(self._waiting.popleft(), now)
        for batch in self._running:
            if not batch.answered and now - batch.started_at >= self._limits.timeout_s:
                self._time_out(batch, now)
            elif batch.answered and now - batch.cancelled_at >= self._limits.patience_s:
                self.stuck = True

    def dispatch(self) -> None:
        """Begin what may begin."""
        while self._waiting and self._admission.may_run() and (thread := self._free_thread()) is not None:
            batch = take_batch(self._waiting, self._admission.room(self._limits.batch))
            self._admission.dequeue(len(batch))
            there = [job for job in batch if not job.caller.gone]
            for job in batch:
                if job.caller.gone:
                    # Answered all the same: a caller that only closed its sending half still reads.
                    job.error = Overloaded(waited_ms=round((perf_counter() - job.asked_at) * 1000))
                    job.done(job)
            if there:
                self._admission.begin(len(there))
                self._start(thread, there)
            else:
                self._idle.append(thread)

    def close(self) -> None:
        """No more runs: idle threads end, busy ones after their run."""
        self._closed = True
        for thread in self._idle:
            thread.end()
        self._idle.clear()

    def _run_inline(self) -> None:
        """What came since the loop last looked; it is looked at again before the next round."""
        waiting, self._inline = self._inline, deque()
        while waiting:
            jobs = take_batch(waiting, self._limits.batch)
            Batch(self.model, jobs, 0.0).execute()
            for job in jobs:
                job.done(job)

    def _free_thread(self) -> _ModelThread | None:
        if self._idle:
            return self._idle.pop()
        if self._threads >= self._most_threads:
            return None
        self._threads += 1
        thread = _ModelThread(f"{self.model.name}-{self._threads}", self._loop, self._ended)
        thread.start()
        return thread

    def _start(self, thread: _ModelThread, jobs: list[Job]) -> None:
        batch = Batch(self.model, jobs, perf_counter())
        self._running[batch] = thread
        thread.take(batch)

    def _ended(self, batch: Batch) -> None:
        thread = self._running.pop(batch)
        if self._closed:
            thread.end()
        else:
            self._idle.append(thread)
        self._admission.end(len(batch.jobs))
        # The model goes on with what waits before its answers are written.
        self._admission.turn()
        if not batch.answered:
            for job in batch.jobs:
                job.done(job)

    def _refuse(self, job: Job, now: float) -> None:
        self._admission.dequeue(1)
        job.error = Overloaded(waited_ms=round((now - job.asked_at) * 1000))
        job.done(job)

    def _time_out(self, batch: Batch, now: float) -> None:
        batch.answered, batch.cancelled_at = True, now
        batch.cancel()
        late = ScoringTimeout(timeout_ms=round(self._limits.timeout_s * 1000))
        for job in batch.jobs:
            # The thread still has its hands on the job itself.
            answer = Job(job.caller, job.done, wanted=job.wanted)
            answer.asked_at, answer.started_at, answer.finished_at, answer.error = job.asked_at, batch.started_at, now, late
            answer.rows = job.rows
            job.done(answer)


class _ModelThread(threading.Thread):
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
            self._loop.call_soon_threadsafe(self._ended, batch)
