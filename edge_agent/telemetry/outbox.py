"""The durable telemetry buffer: one writer thread, group commit, acknowledged to modules only after the fsync.

Whatever waits while a commit is under way goes into the next one together. Between commits the same thread keeps house: what
has expired goes, a quota that became smaller is reached in small steps. A damaged file is moved aside and a new one, with a new
epoch, takes its place (``buffer_file.py``); what was waiting is stored there. Reading never waits for writing (WAL).
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge_agent.errors import BufferFull, BufferUnwritable
from edge_agent.telemetry import dropping, ledger, room
from edge_agent.telemetry.appending import Appender
from edge_agent.telemetry.buffer_age import BufferAge
from edge_agent.telemetry.buffer_file import BufferFile, is_damage
from edge_agent.telemetry.entries import Entry, Mark, Portion, Queue, Receipt, Totals
from edge_agent.telemetry.rules import Limits, Rules
from edge_agent.telemetry.salvage import Wanted, carry_over
from hedgerow.clock import Clock, SystemClock, boot_id
from hedgerow.contracts.edge import TelemetryPolicy
from hedgerow.errors import HedgerowError

GROUP_MAX = 512
# Entries that wait for the disk at most; whoever hands over more without waiting for answers is refused.
WAITING_MAX = 20_000
HOUSEKEEPING_S = 5.0
# What housekeeping removes at most in one transaction.
HOUSEKEEPING_ROWS = 2048
T = TypeVar("T")
log = logging.getLogger(__name__)

__all__ = ["Entry", "Limits", "Outbox", "Receipt"]


@dataclass(frozen=True, slots=True)
class _Job:
    """Entries to store (all of them or none; with ``parts`` each part for itself), or work on the rows."""

    entries: Sequence[Entry]
    work: Callable[[sqlite3.Connection], object] | None
    result: Future[object]
    parts: Sequence[Sequence[Entry]] | None = None


class Outbox:
    """``on_stored`` is called after commits that stored messages, ``on_damage`` with the reason when a file was set aside.

    ``clock`` and ``boot`` (the kernel's boot id) give messages their age.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        on_stored: Callable[[], None],
        on_damage: Callable[[str], None],
        *,
        clock: Clock | None = None,
        boot: str | None = None,
    ) -> None:
        self._rules = Rules(limits)
        self._on_stored = on_stored
        self._age = BufferAge(clock or SystemClock(), boot if boot is not None else boot_id())
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting = 0
        self._counting = threading.Lock()
        self._closed = False
        self._totals = Totals("", 0, 0, 0, 0)
        self._stored_priorities: Mapping[str, int | None] = {}
        self._remembered: Mapping[str, Wanted] = {}
        # A quota may have become smaller: housekeeping finds out.
        self._rules_changed = threading.Event()
        self._rules_changed.set()
        self._shrinking = False
        self._file = BufferFile(path, on_damage, self._opened)
        try:
            self._file.writer()
        except (OSError, sqlite3.DatabaseError) as problem:
            # A full disk, most of all. The agent has modules to look after; each later use tries again.
            log.error("the telemetry buffer cannot be opened now: %s", problem)
        self._thread = threading.Thread(target=self._write_all, name="outbox", daemon=True)
        self._thread.start()

    def append(self, stream: str, module: str, time_ms: int, body: str, key: str | None = None) -> Receipt:
        """Store a message; returns when it is on the disk. Raises BufferFull, BufferUnwritable."""
        return self.append_all([Entry(stream, module, time_ms, body, key)])[0]

    def append_all(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Store messages, all or none; returns when they are on the disk. Raises BufferFull, BufferUnwritable.

        Entries with the same module and key are parts of one request: when the key is known from an earlier call, none of
        them is stored again.
        """
        return self.submit_all(entries).result()

    def submit_all(self, entries: Sequence[Entry]) -> Future[list[Receipt]]:
        """Like ``append_all`` without waiting; everything that is under way at the same time shares commits."""
        result: Future[list[Receipt]] = Future()
        self._hand_in(_Job(entries, None, result))  # type: ignore[arg-type]  # a job with entries answers with receipts
        return result

    def submit_each(self, parts: Sequence[Sequence[Entry]]) -> Future[list[list[Receipt] | HedgerowError]]:
        """Like ``submit_all`` for each of ``parts``, at the cost of one: what became of each comes in their order."""
        result: Future[list[list[Receipt] | HedgerowError]] = Future()
        self._hand_in(_Job([entry for part in parts for entry in part], None, result, parts))  # type: ignore[arg-type]  # likewise
        return result

    def take_policy(self, policy: TelemetryPolicy, priorities: Mapping[str, int | None]) -> None:
        """The policy of the desired state in force; ``priorities`` are the routes'. Counts from the next message on."""
        self._rules = Rules(self._rules.limits, policy, dict(priorities))
        self._rules_changed.set()

    def settle(self, stream: str, mark: Mark) -> bool:
        """The hub (or, for a local stream, the module) has everything up to ``mark``. False when that cannot be: then a new
        epoch is due."""

        def work(db: sqlite3.Connection) -> bool:
            done = ledger.settle(db, stream, mark)
            local = db.execute("SELECT local FROM streams WHERE stream = ?", (stream,)).fetchone()
            if local is not None and local[0]:
                dropping.evict_acked(db, 1 << 62, stream=stream, max_rows=HOUSEKEEPING_ROWS)  # nobody will ask for it again
            return done

        return self._submit(work)

    def begin_epoch(self) -> str:
        """A new epoch for everything that the hub has not acknowledged."""
        return self._submit(ledger.begin_epoch)

    def read_after(
        self, epoch: str, stream: str, mark: Mark, *, max_messages: int, max_bytes: int, holes: bool = False
    ) -> Portion | None:
        """What follows ``mark`` in this epoch; None when there is nothing, or another epoch has begun."""

        def work(db: sqlite3.Connection) -> Portion | None:
            if ledger.epoch(db) != epoch:
                return None
            return ledger.read_after(db, stream, mark, max_messages=max_messages, max_bytes=max_bytes, holes=holes)

        return self._read(work)

    def streams(self) -> tuple[str, dict[str, Mark]]:
        """The epoch, and every stream that goes to the hub with its newest mark."""
        return self._read(lambda db: (ledger.epoch(db), ledger.streams(db)))

    def local_streams(self) -> tuple[str, dict[str, Mark]]:
        """The epoch, and every stream that goes to a module's input with its newest mark. A new epoch keeps their numbers."""
        return self._read(lambda db: (ledger.epoch(db), ledger.streams(db, local=True)))

    def settled(self, stream: str) -> Mark:
        """Up to where a stream was settled; reading goes on from there after a start."""
        return self._read(lambda db: ledger.settled(db, stream))

    def urgency(self, stream: str) -> int:
        """0 (goes first) to 10 (no priority)."""
        return self._rules.urgency(stream, self._stored_priorities.get(stream))

    @property
    def totals(self) -> Totals:
        """The buffer in numbers, as of the last commit."""
        return self._totals

    def queues(self) -> list[Queue]:
        """What waits in each stream. Raises BufferUnwritable while the file cannot be read."""

        def work(db: sqlite3.Connection) -> list[Queue]:
            rows = db.execute("SELECT stream, local, priority, queued_messages FROM streams ORDER BY stream")
            return [Queue(stream, bool(local), priority, messages) for stream, local, priority, messages in rows]

        return self._read(work)

    @property
    def writer_thread(self) -> int | None:
        """The kernel's id of the thread that does all the writing."""
        return self._thread.native_id

    def close(self) -> None:
        """Finish what was submitted, then close the file."""
        with self._counting:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        self._file.disconnect()

    def _hand_in(self, job: _Job) -> None:
        with self._counting:
            refused = self._waiting + len(job.entries) > WAITING_MAX
            self._waiting += 0 if refused else len(job.entries)
        if refused:
            job.result.set_exception(BufferUnwritable(problem=f"{WAITING_MAX} messages wait for it already"))
        elif not self._put(job):
            job.result.set_exception(BufferUnwritable(problem="the agent ends"))

    def _put(self, job: _Job) -> bool:
        with self._counting:
            if not self._closed:
                self._jobs.put(job)
            return not self._closed

    def _submit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        job = _Job((), work, Future())
        if not self._put(job):
            raise BufferUnwritable(problem="the agent ends")
        return job.result.result()  # type: ignore[return-value]  # the job's own work made it

    def _write_all(self) -> None:
        tidy_at_s = time.monotonic() + HOUSEKEEPING_S
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, tidy_at_s - time.monotonic()))
            except queue.Empty:
                tidy_at_s = time.monotonic() + (0.0 if self._keep_house() else HOUSEKEEPING_S)
                continue
            if job is None:
                return
            self._write(self._group(job))

    def _write(self, group: list[_Job]) -> None:
        jobs = [job for job in group if job.result.set_running_or_notify_cancel()]
        try:
            if self._commit(jobs):
                self._on_stored()
        except Exception as surprise:
            # The only writer must outlive everything; who waits for an answer gets one.
            log.exception("a group of %d could not be written", len(jobs))
            _refuse_unanswered(jobs, surprise)
        finally:
            with self._counting:
                self._waiting -= sum(len(done.entries) for done in group)

    def _group(self, first: _Job) -> list[_Job]:
        jobs = [first]
        while len(jobs) < GROUP_MAX and not self._jobs.empty():
            following = self._jobs.get()
            if following is None:
                self._jobs.put(None)
                break
            jobs.append(following)
        return jobs

    def _commit(self, jobs: list[_Job]) -> bool:
        """Carry out and answer; True when messages were stored."""
        try:
            results = self._transaction(jobs)
        except sqlite3.DatabaseError as problem:
            repaired = self._file.set_aside(str(problem)) if is_damage(problem) else self._file.shrink_log()
            results = self._transaction_or_refuse(jobs) if repaired else [BufferUnwritable(problem=str(problem))] * len(jobs)
        stored = False
        for job, result in zip(jobs, results, strict=True):
            stored = stored or isinstance(result, list)
            if isinstance(result, Exception):
                job.result.set_exception(result)
            else:
                job.result.set_result(result)
        return stored

    def _transaction_or_refuse(self, jobs: list[_Job]) -> list[object]:
        try:
            return self._transaction(jobs)
        except sqlite3.DatabaseError as problem:
            return [BufferUnwritable(problem=str(problem))] * len(jobs)

    def _transaction(self, jobs: list[_Job]) -> list[object]:
        """All jobs in one commit; refused messages take back only themselves. Raises sqlite3.DatabaseError with nothing done."""
        db = self._file.writer()
        db.execute("BEGIN IMMEDIATE")
        try:
            results = self._carry_out(db, jobs)
            self._evict_replay(db)
            self._expire(db)
            totals, (priorities, remembered) = ledger.totals(db), _streams(db)
            self._age.keep(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._totals, self._stored_priorities, self._remembered = totals, priorities, remembered
        self._file.give_back_pages()
        return results

    def _carry_out(self, db: sqlite3.Connection, jobs: list[_Job]) -> list[object]:
        appender = Appender(db, self._rules.limits.ids_max)
        rules, age = self._rules, self._age.seconds()

        def outcome(entries: Sequence[Entry]) -> list[Receipt] | HedgerowError:
            try:
                return room.store(db, appender, rules, entries, age)
            except BufferFull as refused:
                return refused

        appender.look_up(entry for job in jobs for entry in job.entries)
        results: list[object] = []
        for job in jobs:
            if job.work is not None:
                appender.flush()
                results.append(job.work(db))
            elif job.parts is not None:
                results.append([outcome(part) for part in job.parts])
            else:
                results.append(outcome(job.entries))
        appender.flush()
        return results

    def _keep_house(self) -> bool:
        """One step of what has to be done without anybody asking; True when there is more of it."""
        try:
            db = self._file.writer()
            before = self._totals.kept_bytes
            due = dropping.next_expiry(db)
            over = self._shrinking or self._rules_changed.is_set() or _acked_bytes(db) > self._rules.limits.replay_bytes
            if not over and (due is None or due > self._age.seconds()):
                return False
            self._rules_changed.clear()
            self._transaction([_Job((), lambda db: room.shrink(db, self._rules), Future())])
            self._shrinking = self._totals.kept_bytes < before
        except (OSError, sqlite3.DatabaseError) as problem:
            log.debug("housekeeping has to wait: %s", problem)
            return isinstance(problem, sqlite3.DatabaseError) and is_damage(problem) and self._file.set_aside(str(problem))
        return self._totals.kept_bytes < before

    def _evict_replay(self, db: sqlite3.Connection) -> None:
        over = _acked_bytes(db) - self._rules.limits.replay_bytes
        if over > 0:
            dropping.evict_acked(db, over, max_rows=HOUSEKEEPING_ROWS)

    def _expire(self, db: sqlite3.Connection) -> None:
        dropping.expire(db, self._age.seconds(), HOUSEKEEPING_ROWS)

    def _opened(self, db: sqlite3.Connection, damaged: Path | None) -> None:
        """A file was opened: go on with its age and its numbers, and with what can be read of the one it replaces."""
        if damaged is not None:
            carry_over(db, damaged, self._remembered)
        self._age.load(db)
        self._totals = ledger.totals(db)
        self._stored_priorities, self._remembered = _streams(db)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._read_once(work)
        except sqlite3.DatabaseError as problem:
            if not is_damage(problem):
                raise BufferUnwritable(problem=str(problem)) from problem
            self._submit(_stumble_over(problem))
            return self._read_once(work)

    def _read_once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if not self._file.is_open:
            self._submit(_nothing)  # the writer opens the file, or says why it cannot
        return self._file.read(work)


def _streams(db: sqlite3.Connection) -> tuple[dict[str, int | None], dict[str, Wanted]]:
    """Priorities that were stored, and what would be missed if this file were damaged."""
    rows = db.execute("SELECT stream, priority, max(acked, base), last, local FROM streams").fetchall()
    wanted = {stream: Wanted(after, last, bool(local)) for stream, _, after, last, local in rows if last > after}
    return {stream: priority for stream, priority, *_ in rows}, wanted


def _acked_bytes(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(sum(acked_bytes), 0) FROM streams").fetchone()[0])


def _refuse_unanswered(jobs: list[_Job], problem: Exception) -> None:
    for job in jobs:
        if not job.result.done():
            job.result.set_exception(problem)


def _nothing(_db: sqlite3.Connection) -> None:
    """Work that only needs the file to be open."""


def _stumble_over(problem: sqlite3.DatabaseError) -> Callable[[sqlite3.Connection], None]:
    """Work by which the writer meets the damage that a reader has found, unless it was repaired meanwhile."""

    def work(db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise problem

    return work
