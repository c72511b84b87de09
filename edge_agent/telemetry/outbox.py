"""The durable telemetry buffer: one writer thread, group commit, acknowledged to modules only after the fsync.

Whatever waits while a commit is under way goes into the next one together. A damaged file is moved aside and a new one,
with a new epoch, takes its place; what was waiting is stored there. Reading never waits for writing (WAL).
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge_agent.errors import BufferFull, BufferUnwritable
from edge_agent.telemetry import ledger
from edge_agent.telemetry.ledger import Mark, Portion, Receipt, Totals
from hedgerow.contracts.edge import OverflowPolicy

GROUP_MAX = 512
BUSY_TIMEOUT_S = 10.0
VACUUM_PAGES = 500
LOG_PAGES = 400
# Freed pages are given back to the disk in small portions, and only when it is worth it.
VACUUM_THRESHOLD_PAGES = 2000
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Bytes kept at most in all, and of what the hub has already; what happens when all is taken."""

    quota_bytes: int
    replay_bytes: int
    overflow: OverflowPolicy = "drop-oldest"

    @property
    def ids_max(self) -> int:
        """Idempotency keys remembered; their table stays below a tenth of the quota."""
        return min(ledger.REMEMBERED_IDS, max(1000, self.quota_bytes // 2000))


@dataclass(frozen=True)
class _Job:
    work: Callable[[sqlite3.Connection], object]
    result: Future[object]


class Outbox:
    """``on_stored`` is called after commits that stored messages, ``on_damage`` with the reason when a file was set aside."""

    def __init__(self, path: Path, limits: Limits, on_stored: Callable[[], None], on_damage: Callable[[str], None]) -> None:
        self._path = path
        self._limits = limits
        self._on_stored = on_stored
        self._on_damage = on_damage
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._reading = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._totals = Totals("", 0, 0, 0, 0)
        try:
            self._connected()
        except (OSError, sqlite3.DatabaseError) as problem:
            # A full disk, most of all. The agent has modules to look after; each later use tries again.
            log.error("the telemetry buffer cannot be opened now: %s", problem)
        self._thread = threading.Thread(target=self._write_all, name="outbox", daemon=True)
        self._thread.start()

    def append(self, stream: str, module: str, time_ms: int, body: str, key: str | None = None) -> Receipt:
        """Store a message; returns when it is on the disk. Raises BufferFull (policy drop-newest), BufferUnwritable."""

        def work(db: sqlite3.Connection) -> Receipt:
            return self._append(db, stream, module, time_ms, body, key)

        return self._submit(work)

    def settle(self, stream: str, mark: Mark) -> bool:
        """The hub has everything up to ``mark``. False when that cannot be: then a new epoch is due."""
        return self._submit(lambda db: ledger.settle(db, stream, mark))

    def begin_epoch(self) -> str:
        """A new epoch for everything that the hub has not acknowledged."""
        return self._submit(ledger.begin_epoch)

    def read_after(self, epoch: str, stream: str, mark: Mark, *, max_messages: int, max_bytes: int) -> Portion | None:
        """What follows ``mark`` in this epoch; None when there is nothing, or another epoch has begun."""

        def work(db: sqlite3.Connection) -> Portion | None:
            if ledger.epoch(db) != epoch:
                return None
            return ledger.read_after(db, stream, mark, max_messages=max_messages, max_bytes=max_bytes)

        return self._read(work)

    def streams(self) -> tuple[str, dict[str, Mark]]:
        """The epoch, and every stream with its newest mark."""
        return self._read(lambda db: (ledger.epoch(db), ledger.streams(db)))

    @property
    def totals(self) -> Totals:
        """The buffer in numbers, as of the last commit."""
        return self._totals

    def close(self) -> None:
        """Finish what was submitted, then close the file."""
        self._jobs.put(None)
        self._thread.join()
        self._disconnect()

    def _submit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        job = _Job(work, Future())
        self._jobs.put(job)
        return job.result.result()  # type: ignore[return-value]  # the job's own work made it

    def _append(self, db: sqlite3.Connection, stream: str, module: str, time_ms: int, body: str, key: str | None) -> Receipt:
        receipt = ledger.append(db, stream, module, time_ms, body, key, ids_max=self._limits.ids_max)
        kept = db.execute("SELECT kept_bytes FROM totals").fetchone()[0]
        over = kept - self._limits.quota_bytes
        if over > 0 and not receipt.repeated:
            drop_oldest = self._limits.overflow == "drop-oldest"
            freed = ledger.evict(db, over, acked_only=not drop_oldest)
            if freed < over:
                raise BufferFull(quota=self._limits.quota_bytes)
        return receipt

    def _write_all(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            jobs = [job]
            while len(jobs) < GROUP_MAX and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    self._jobs.put(None)
                    break
                jobs.append(following)
            try:
                if self._commit(jobs):
                    self._on_stored()
            except Exception as surprise:
                # The only writer must outlive everything; who waits for an answer gets one.
                log.exception("a group of %d could not be written", len(jobs))
                _refuse_unanswered(jobs, surprise)

    def _commit(self, jobs: list[_Job]) -> bool:
        """Carry out and answer; True when messages were stored."""
        try:
            results = self._transaction(jobs)
        except sqlite3.DatabaseError as problem:
            repaired = self._set_aside(str(problem)) if _is_damage(problem) else self._shrink_log()
            results = self._transaction_or_refuse(jobs) if repaired else [BufferUnwritable(problem=str(problem))] * len(jobs)
        stored = False
        for job, result in zip(jobs, results, strict=True):
            stored = stored or isinstance(result, Receipt)
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
        """All jobs in one commit; a refused message takes back only itself. Raises sqlite3.DatabaseError with nothing done."""
        db = self._connected()
        db.execute("BEGIN IMMEDIATE")
        try:
            results = [_with_savepoint(db, job) for job in jobs]
            acked_bytes = db.execute("SELECT coalesce(sum(acked_bytes), 0) FROM streams").fetchone()[0]
            if acked_bytes > self._limits.replay_bytes:
                ledger.evict(db, acked_bytes - self._limits.replay_bytes, acked_only=True)
            totals = ledger.totals(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._totals = totals
        _give_back_pages(db)
        return results

    def _shrink_log(self) -> bool:
        """On a full disk the write-ahead log holds space that its checkpoint frees. False when there was nothing to gain."""
        log_file = self._path.with_name(f"{self._path.name}-wal")
        try:
            before = log_file.stat().st_size
            self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return log_file.stat().st_size < before
        except (OSError, sqlite3.DatabaseError):
            return False

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._read_once(work)
        except sqlite3.DatabaseError as problem:
            if not _is_damage(problem):
                raise BufferUnwritable(problem=str(problem)) from problem
            self._submit(_stumble_over(problem))
            return self._read_once(work)

    def _read_once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._reader is None:
            self._submit(_nothing)  # the writer opens the file, or says why it cannot
        with self._reading:
            db = self._reader
            if db is None:
                raise BufferUnwritable(problem="it is being replaced")
            db.execute("BEGIN")
            try:
                return work(db)
            finally:
                db.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        # Calls are serialised by the writer thread and by the reading lock.
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA cache_size = -2000")
            # The log takes as much disk as the rows do not have: small, so that a nearly full disk goes far.
            db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            db.execute(f"PRAGMA journal_size_limit = {LOG_PAGES * ledger.PAGE_BYTES}")
        except BaseException:
            db.close()
            raise
        return db

    def _connected(self) -> sqlite3.Connection:
        """The writer's connection, opened when there is none; a file that is no buffer is set aside first."""
        if self._writer is not None:
            return self._writer
        try:
            writer = self._open()
        except sqlite3.DatabaseError as problem:
            # OperationalError is about the disk or the rights, not about the content.
            if isinstance(problem, sqlite3.OperationalError) or not self._set_aside(str(problem)):
                raise
            writer = self._open()
        try:
            reader, totals = self._connect(), ledger.totals(writer)
        except BaseException:
            writer.close()
            raise
        with self._reading:
            self._writer, self._reader, self._totals = writer, reader, totals
        return writer

    def _disconnect(self) -> None:
        with self._reading:
            for db in (self._writer, self._reader):
                if db is not None:
                    db.close()
            self._writer = self._reader = None

    def _open(self) -> sqlite3.Connection:
        db = self._connect()
        try:
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                db.execute("BEGIN IMMEDIATE")
                ledger.create(db)
                db.execute("COMMIT")
            ledger.totals(db)
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, problem: str) -> bool:
        """Move a damaged file out of the way, so that the next use begins a new one. False when even that is impossible."""
        self._disconnect()
        try:
            for suffix in ("", "-wal", "-shm"):
                path = self._path.with_name(self._path.name + suffix)
                if path.exists():
                    path.replace(path.with_name(f"{path.name}.damaged"))
        except OSError as refused:
            log.error("the damaged telemetry buffer cannot be set aside: %s", refused)
            return False
        self._on_damage(problem)
        return True


def _give_back_pages(db: sqlite3.Connection) -> None:
    try:
        if db.execute("PRAGMA freelist_count").fetchone()[0] > VACUUM_THRESHOLD_PAGES:
            # Through executescript: stepping it by execute() frees a single page.
            db.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
    except sqlite3.DatabaseError as problem:
        log.debug("pages could not be given back: %s", problem)


def _refuse_unanswered(jobs: list[_Job], problem: Exception) -> None:
    for job in jobs:
        if not job.result.done():
            job.result.set_exception(problem)


def _with_savepoint(db: sqlite3.Connection, job: _Job) -> object:
    db.execute("SAVEPOINT job")
    try:
        result = job.work(db)
    except BufferFull as refused:
        db.execute("ROLLBACK TO job")
        result = refused
    db.execute("RELEASE job")
    return result


def _nothing(_db: sqlite3.Connection) -> None:
    """Work that only needs the file to be open."""


def _stumble_over(problem: sqlite3.DatabaseError) -> Callable[[sqlite3.Connection], None]:
    """Work by which the writer meets the damage that a reader has found, unless it was repaired meanwhile."""

    def work(db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise problem

    return work


def _is_damage(problem: sqlite3.DatabaseError) -> bool:
    code = getattr(problem, "sqlite_errorcode", None)
    # Extended codes carry the primary one in their lowest byte.
    return code is not None and code & 0xFF in _DAMAGE
