"""Drives jobs: takes activities, plays their stories (``effects.py``), shows their progress, ends them exactly once.

One thread, no job ever blocks another: while a story waits for a process or for the database, the loop turns. Processes of
jobs end with the controller, however it ends; what becomes of their activities then is decided by ``activities.recover``.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from hedgerow.clock import Clock
from hedgerow.contracts.work import Activity
from hedgerow.errors import Bug, HedgerowError
from hedgerow.process import AlreadyRunning, Supervised
from registry.controller.effects import Aside, Effect, Ended, Note, Record, RunProcess, Story, Verdict
from registry.controller.errors import Cancelled, as_problem
from registry.controller.event_loop import EventLoop
from registry.controller.job_process import JobProcess
from registry.controller.side_work import SideWork
from registry.controller.teller import Teller
from registry.errors import DatabaseUnavailable, LeaseLost
from registry.store import activities
from registry.store.database import Database
from registry.store.leases import Lease
from registry.wakeups import FEED, Wakeups

RETRY_S = 1.0
PREFIX = "job-"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobTools:
    """What driving a job needs; ``lease`` gives the lease as it is now.

    ``processes`` is where state folders are made, ``work`` where jobs have their files while they run.
    """

    database: Database
    wakeups: Wakeups
    loop: EventLoop
    clock: Clock
    lease: Callable[[], Lease]
    processes: Path
    work: Path


@dataclass(frozen=True)
class Kind:
    """How activities of one kind are worked off, and how many of them at once."""

    story: Callable[[Activity, bytes], Story]
    at_once: int


class Jobs:
    """The jobs under way."""

    def __init__(self, tools: JobTools, kinds: Mapping[str, Kind]) -> None:
        self._tools, self._kinds = tools, kinds
        self._running: dict[str, _Job] = {}

    def sweep(self) -> None:
        """Once at the start: what an earlier controller was working on has ended with it."""
        for folder in self._tools.processes.glob(f"{PREFIX}*"):
            # Should it take its time, it must not write into what we do next.
            Supervised(folder).stop(0.0)
            with suppress(AlreadyRunning):
                Supervised(folder).forget()
        for folder in self._tools.work.glob("*/*"):
            shutil.rmtree(folder, ignore_errors=True)

    def take(self) -> None:
        """Begin queued activities as far as there is room. Raises DatabaseUnavailable, LeaseLost."""
        for name, kind in self._kinds.items():
            while sum(job.kind == name for job in self._running.values()) < kind.at_once:
                with self._tools.database.write() as connection:
                    claimed = activities.claim(connection, self._tools.lease(), [name], self._tools.clock.now())
                if claimed is None:
                    break
                activity, request = claimed
                job = _Job(self._tools, activity, kind.story(activity, request), self._ended)
                self._running[activity.id] = job
                job.begin()

    def cancel(self, activity_ids: set[str]) -> None:
        """Stop those of these that run here."""
        for activity_id in activity_ids & self._running.keys():
            self._running[activity_id].cancel()

    def stop(self) -> None:
        """End every process at once, without a word to the activities: ``activities.give_back`` settles them."""
        for job in self._running.values():
            job.abandon()
        self._running.clear()

    def _ended(self, job: _Job) -> None:
        self._running.pop(job.activity.id, None)
        # There is room now.
        self._tools.loop.after(0.0, self._take_quietly)

    def _take_quietly(self) -> None:
        try:
            self.take()
        except DatabaseUnavailable as problem:
            log.warning("%s", problem.sentence())
            self._tools.loop.after(RETRY_S, self._take_quietly)


class _Job:
    def __init__(self, tools: JobTools, activity: Activity, story: Story, done: Callable[[_Job], None]) -> None:
        self.activity = activity
        self._tools, self._story, self._done = tools, story, done
        self._teller = Teller(tools.database, tools.wakeups, tools.clock, tools.lease, activity.id)
        self._process: JobProcess | None = None
        self._cancelled = False

    @property
    def kind(self) -> str:
        return self.activity.kind

    def begin(self) -> None:
        log.info("%s %s begins (attempt %d): %s", self.kind, self.activity.id, self.activity.attempt, self.activity.subject)
        self._play(lambda: next(self._story))

    def cancel(self) -> None:
        """The story hears of it when its process has ended, or before its next effect."""
        if not self._cancelled:
            self._cancelled = True
            if self._process is not None:
                self._process.stop()

    def abandon(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.forget()
        self._story.close()

    def _play(self, resume: Callable[[], Effect]) -> None:
        """Let the story go on to its next effect, or to its end."""
        try:
            effect = resume()
        except StopIteration as end:
            self._conclude(end.value)
        except LeaseLost:
            raise
        except Cancelled:
            self._conclude(Verdict("cancelled"))
        except HedgerowError as problem:
            self._conclude(Verdict("failed", problem=as_problem(problem)))
        except Exception as problem:
            log.exception("%s %s failed by our own fault", self.kind, self.activity.id)
            self._conclude(Verdict("failed", problem=as_problem(Bug(what=f"{type(problem).__name__}: {problem}"))))
        else:
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        if self._cancelled:
            self._play(lambda: self._story.throw(Cancelled()))
            return
        match effect:
            case Note(text):
                self._teller.add_line(text)
                self._tell()
                self._play(lambda: self._story.send(None))
            case Aside():
                self._step_aside(effect)
            case Record():
                self._record(effect)
            case RunProcess():
                self._run(effect)
            case _:
                assert_never(effect)

    def _record(self, effect: Record) -> None:
        try:
            with self._tools.database.write() as connection:
                value = effect.action(connection, self._tools.lease())
        except DatabaseUnavailable as problem:
            log.warning("%s %s waits: %s", self.kind, self.activity.id, problem.sentence())
            self._tools.loop.after(RETRY_S, lambda: self._do(effect))
        except LeaseLost:
            raise
        except HedgerowError as problem:
            # Bound here: the name of an exception is gone when a later callback looks for it.
            self._throw(problem)
        except Exception as problem:
            # One job's trouble (such as a model that was deleted under it) must not end the controller and every other job.
            log.exception("%s %s failed", self.kind, self.activity.id)
            self._throw(Bug(what=f"{type(problem).__name__} while recording"))
        else:
            self._play(lambda: self._story.send(value))

    def _step_aside(self, effect: Aside) -> None:
        if effect.step:
            self._teller.show(effect.progress, effect.step)
            self._tell()
        work = SideWork(effect.action)
        try:
            self._tools.loop.watch_end(work.start(), lambda: self._aside_ended(work))
        except HedgerowError as problem:
            self._throw(problem)

    def _aside_ended(self, work: SideWork) -> None:
        if self._cancelled:
            self._play(lambda: self._story.throw(Cancelled()))
        elif work.problem is None:
            self._play(lambda: self._story.send(work.value))
        else:
            self._throw(work.problem)

    def _run(self, effect: RunProcess) -> None:
        process = JobProcess(self._tools.processes / f"{PREFIX}{self.activity.id}", effect, self._teller, self._tools.loop)
        # Known before it starts: its first news may bring the wish to cancel.
        self._process = process
        try:
            process.start(on_news=self._tell, on_end=self._process_ended)
        except LeaseLost:
            raise
        except HedgerowError as problem:
            self._process = None
            self._throw(problem)

    def _process_ended(self, ended: Ended) -> None:
        self._process = None
        if self._cancelled:
            self._play(lambda: self._story.throw(Cancelled()))
        else:
            self._play(lambda: self._story.send(ended))

    def _throw(self, problem: HedgerowError) -> None:
        self._play(lambda: self._story.throw(problem))

    def _tell(self) -> None:
        if not self._teller.tell():
            self.cancel()

    def _conclude(self, verdict: Verdict) -> None:
        """End the activity; while the database is away, try until it is back. The job holds its place until then."""
        try:
            self._teller.tell()
            with self._tools.database.write() as connection:
                if verdict.record is not None:
                    verdict.record(connection, self._tools.lease())
                activities.finish(
                    connection,
                    self._tools.lease(),
                    self.activity.id,
                    state=verdict.state,
                    result=verdict.result,
                    problem=verdict.problem,
                    now=self._tools.clock.now(),
                )
        except DatabaseUnavailable as problem:
            log.warning("%s %s cannot be ended yet: %s", self.kind, self.activity.id, problem.sentence())
            self._tools.loop.after(RETRY_S, lambda: self._conclude(verdict))
            return
        except LeaseLost:
            raise
        except HedgerowError as problem:
            # What was to be recorded is refused; the plain verdict records nothing, so this happens once.
            self._conclude(Verdict("failed", problem=as_problem(problem)))
            return
        except Exception as problem:
            log.exception("%s %s could not be recorded", self.kind, self.activity.id)
            if verdict.record is None:
                raise  # nothing plainer is left to record
            self._conclude(Verdict("failed", problem=as_problem(Bug(what=f"{type(problem).__name__} while recording"))))
            return
        log.info("%s %s %s", self.kind, self.activity.id, verdict.state)
        for reader in ("server", FEED):
            self._tools.wakeups.wake(reader)
        self._done(self)
