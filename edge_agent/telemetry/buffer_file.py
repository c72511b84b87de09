"""The buffer's file: its two connections (one writes, one reads), its place when it is damaged, its space on the disk."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge_agent.errors import BufferUnwritable
from edge_agent.telemetry import ledger, schema

BUSY_TIMEOUT_S = 10.0
VACUUM_PAGES = 500
LOG_PAGES = 400
# Freed pages are given back to the disk in small portions, and only when it is worth it.
VACUUM_THRESHOLD_PAGES = 2000
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
T = TypeVar("T")
log = logging.getLogger(__name__)


class BufferFile:
    """``on_damage`` hears why a file was set aside, ``on_open`` gets the writing connection of each file that is opened, and the
    damaged file that it replaces.

    One thread writes; reading is serialised by a lock.
    """

    def __init__(
        self, path: Path, on_damage: Callable[[str], None], on_open: Callable[[sqlite3.Connection, Path | None], None]
    ) -> None:
        self._path = path
        self._on_damage = on_damage
        self._on_open = on_open
        self._reading = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._damaged: Path | None = None

    @property
    def is_open(self) -> bool:
        """False before the first use of the writer, and while a damaged file is being replaced."""
        return self._reader is not None

    def writer(self) -> sqlite3.Connection:
        """The writer's connection, opened when there is none; a file that is no buffer is set aside first. Raises OSError,
        sqlite3.DatabaseError."""
        if self._writer is not None:
            return self._writer
        try:
            writer = self._open()
        except sqlite3.DatabaseError as problem:
            # OperationalError is about the disk or the rights, not about the content.
            if isinstance(problem, sqlite3.OperationalError) or not self.set_aside(str(problem)):
                raise
            writer = self._open()
        try:
            self._on_open(writer, self._damaged)
            reader = self._connect()
        except BaseException:
            writer.close()
            raise
        with self._reading:
            self._writer, self._reader, self._damaged = writer, reader, None
        return writer

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``work`` on one state of the file. Raises BufferUnwritable while it is being replaced."""
        with self._reading:
            db = self._reader
            if db is None:
                raise BufferUnwritable(problem="it is being replaced")
            db.execute("BEGIN")
            try:
                return work(db)
            finally:
                db.execute("ROLLBACK")

    def disconnect(self) -> None:
        """Close both connections; the next use opens them again."""
        with self._reading:
            for db in (self._writer, self._reader):
                if db is not None:
                    db.close()
            self._writer = self._reader = None

    def set_aside(self, problem: str) -> bool:
        """Move a damaged file out of the way, so that the next use begins a new one. False when even that is impossible."""
        self.disconnect()
        try:
            damaged = self._path.with_name(f"{self._path.name}.damaged")
            for suffix in ("", "-wal", "-shm"):
                path, aside = (file.with_name(file.name + suffix) for file in (self._path, damaged))
                if path.exists():
                    path.replace(aside)
                else:
                    aside.unlink(missing_ok=True)  # of an earlier damage
        except OSError as refused:
            log.error("the damaged telemetry buffer cannot be set aside: %s", refused)
            return False
        self._damaged = damaged
        self._on_damage(problem)
        return True

    def shrink_log(self) -> bool:
        """On a full disk the write-ahead log holds space that its checkpoint frees. False when there was nothing to gain."""
        log_file = self._path.with_name(f"{self._path.name}-wal")
        try:
            before = log_file.stat().st_size
            self.writer().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return log_file.stat().st_size < before
        except (OSError, sqlite3.DatabaseError):
            return False

    def give_back_pages(self) -> None:
        """Return some of the free pages to the disk when there are many."""
        try:
            db = self.writer()
            if db.execute("PRAGMA freelist_count").fetchone()[0] > VACUUM_THRESHOLD_PAGES:
                # Through executescript: stepping it by execute() frees a single page.
                db.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        except sqlite3.DatabaseError as problem:
            log.debug("pages could not be given back: %s", problem)

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
            db.execute(f"PRAGMA journal_size_limit = {LOG_PAGES * schema.PAGE_BYTES}")
        except BaseException:
            db.close()
            raise
        return db

    def _open(self) -> sqlite3.Connection:
        db = self._connect()
        try:
            if not schema.is_up_to_date(db):
                db.execute("BEGIN IMMEDIATE")
                schema.bring_up_to_date(db)
                db.execute("COMMIT")
            ledger.totals(db)
        except BaseException:
            db.close()
            raise
        return db


def is_damage(problem: sqlite3.DatabaseError) -> bool:
    """Whether an error is about the file's content."""
    code = getattr(problem, "sqlite_errorcode", None)
    # Extended codes carry the primary one in their lowest byte.
    return code is not None and code & 0xFF in _DAMAGE
