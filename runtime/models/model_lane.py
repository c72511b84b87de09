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

import logging
import math
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from runtime.admission import Admission
from runtime.errors import Overloaded, ScoringTimeout
from runtime.models.batching import BatchLimits, take_batch
from runtime.models.jobs import Batch, Job, ModelThread, Run
from runtime.models.loaded_model import LoadedModel
from runtime.observing.metrics import ModelCounters

_log = logging.getLogger("hedgerow.runtime.models")

# Larger bodies are read, and their answers written, on the model's thread: the loop must not stand still for milliseconds.
INLINE_BYTES = 32_768
# A model that is slow on the loop itself so many times in a row gets threads after all.
_INLINE_TOO_LONG_S = 0.005
_INLINE_PATIENCE = 5


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
        model: LoadedModel,
        limits: LaneLimits,
        admission: Admission,
        counters: ModelCounters,
        *,
        threads: int,
        inline_rows: int = 0,
    ) -> None:
        self.model, self.counters = model, counters
        self.key = (model.name, model.version)
        self._inline_rows = inline_rows
        self._inline: deque[Job] = deque()
        self._inline_limits = replace(limits.batch, rows=min(limits.batch.rows, max(inline_rows, 1)))
        self._slow_inline = 0
        self._loop, self._limits, self._admission = loop, limits, admission
        self._most_threads = threads
        self._idle: list[ModelThread] = []
        self._threads = 0
        self._waiting: deque[Job] = deque()
        self._running: dict[Batch, ModelThread] = {}
        self._closed = False
        self.stuck = False
        # When the last run ended, on perf_counter's clock; 0 before the first.
        self.ended_at = 0.0

    @property
    def most_rows(self) -> int:
        """Rows that requests may share a run with; 0 when they are never merged."""
        batch = self._limits.batch
        return batch.rows if batch.requests > 1 else 0

    @property
    def pending(self) -> int:
        return len(self._waiting)

    @property
    def oldest(self) -> float:
        """Since when the first that waits has been waiting (perf_counter's); infinity when nobody does."""
        return self._waiting[0].asked_at if self._waiting else math.inf

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
        self._admission.enqueue(len(self._waiting))
        self._waiting.append(job)

    def tick(self, now: float) -> None:
        """Refuse who waited too long, answer what runs too long. ``now`` is perf_counter's."""
        while self._waiting and now - self._waiting[0].asked_at >= self._limits.queue_wait_s:
            self._refuse(self._waiting.popleft(), now)
        self._forget_gone(now)
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
                    _turn_away(job, perf_counter())
            if there:
                self._admission.begin(len(there))
                self._start(thread, there)
            else:
                self._idle.append(thread)

    def close(self) -> None:
        """No more runs: idle threads end, busy ones after their run."""
        self._closed = True
        # Nobody looks at a lane that is gone; what was last seen of its queue would stand there for ever.
        self.counters.pending(0)
        for thread in self._idle:
            thread.end()
        self._idle.clear()

    def _run_inline(self) -> None:
        """What came since the loop last looked; it is looked at again before the next round."""
        waiting, self._inline = self._inline, deque()
        while waiting:
            jobs = take_batch(waiting, self._inline_limits)
            begun = perf_counter()
            batch = Batch(self.model, jobs, 0.0, brief=True)
            batch.execute()
            self.ended_at = jobs[-1].run.finished_at
            if batch.inseparable:
                self._merge_no_more()
            if self.ended_at - begun > _INLINE_TOO_LONG_S:
                self._was_slow()
            else:
                self._slow_inline = 0
            self._answer(jobs)

    def _was_slow(self) -> None:
        """Once is the machine's fault; again and again is the model's, whatever it was like when it was tried out."""
        self._slow_inline += 1
        if self._slow_inline == _INLINE_PATIENCE:
            self._inline_rows = 0
            _log.warning("model %s takes longer than when it was tried; it runs on threads from now on", self.model.name)

    def _merge_no_more(self) -> None:
        """Its outputs have not one row for each row that went in, whatever trying it out showed."""
        alone = BatchLimits(requests=1)
        self._limits, self._inline_limits = replace(self._limits, batch=alone), alone

    def _free_thread(self) -> ModelThread | None:
        if self._idle:
            return self._idle.pop()
        if self._threads >= self._most_threads:
            return None
        self._threads += 1
        thread = ModelThread(f"{self.model.name}-{self._threads}", self._loop, self._ended)
        thread.start()
        return thread

    def _start(self, thread: ModelThread, jobs: list[Job]) -> None:
        batch = Batch(self.model, jobs, perf_counter())
        self._running[batch] = thread
        thread.take(batch)

    def _ended(self, batch: Batch) -> None:
        thread = self._running.pop(batch)
        self.ended_at = perf_counter()
        if batch.inseparable:
            self._merge_no_more()
        if self._closed:
            thread.end()
        else:
            self._idle.append(thread)
        self._admission.end(len(batch.jobs))
        # The model goes on with what waits before its answers are written.
        self._admission.turn()
        if not batch.answered:
            self._answer(batch.jobs)

    def _answer(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.settle()
            job.done(job)
        self.counters.ran(jobs, perf_counter())

    def _forget_gone(self, now: float) -> None:
        """Who went away keeps nobody else out."""
        gone = [job for job in self._waiting if job.caller.gone]
        if gone:
            self._waiting = deque([job for job in self._waiting if not job.caller.gone])
            for job in gone:
                self._refuse(job, now)

    def _refuse(self, job: Job, now: float) -> None:
        self._admission.dequeue(1)
        _turn_away(job, now)

    def _time_out(self, batch: Batch, now: float) -> None:
        batch.answered, batch.cancelled_at = True, now
        batch.cancel()
        late = ScoringTimeout(timeout_ms=round(self._limits.timeout_s * 1000))
        for job in batch.jobs:
            # The thread still has its hands on the job itself.
            answer = Job(job.caller, job.done, job.answer, wanted=job.wanted)
            answer.asked_at, answer.error, answer.rows = job.asked_at, late, job.rows
            answer.run = Run(batch.started_at, 1, job.rows)
            answer.run.finished_at = now
            job.done(answer)


def _turn_away(job: Job, now: float) -> None:
    """Also who went away is answered: a caller that only closed its sending half still reads."""
    job.error = Overloaded(waited_ms=round((now - job.asked_at) * 1000))
    job.done(job)
