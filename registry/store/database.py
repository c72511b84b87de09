"""Connections and transactions, with the rules that keep records whole on SQLite and PostgreSQL.

SQLite: WAL, ``synchronous=FULL``, ``busy_timeout``, foreign keys on, and every writing transaction begins with
``BEGIN IMMEDIATE`` (read-then-insert under the default begin fails under concurrency). PostgreSQL: REPEATABLE READ for
reads only; writers that read-then-write take row locks (``SELECT … FOR UPDATE``) in their repository.
"""

from __future__ import annotations

import importlib.util
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from hedgerow.errors import InvalidSetting, MissingExtra
from registry.errors import DatabaseUnavailable
from registry.store.prepared import Prepared

BUSY_TIMEOUT_MS = 10_000
_WRITING, _READING, _COMMIT, _ROLLBACK = (Prepared.of_text(words) for words in ("BEGIN IMMEDIATE", "BEGIN", "COMMIT", "ROLLBACK"))
_DATABASE_SOURCE = "--database or the environment variable HEDGEROW_DATABASE"


@dataclass(frozen=True)
class Database:
    """The two databases of a workspace; on PostgreSQL both are the same one."""

    records: Engine
    series: Engine
    # Writers of one process wait for each other here: SQLite's own waiting sleeps between looks, up to 100 ms each.
    records_turn: threading.Lock = field(default_factory=threading.Lock)
    series_turn: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot of the records; writes are a mistake here."""
        with _translated(), _snapshot(self.records) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A writing transaction on the records: committed at the end, rolled back on any exception."""
        with _translated(), _turn(self.records, self.records_turn), self.records.connect() as connection, _begun(connection):
            yield connection

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """For one reading statement: it sees one moment by itself, and needs no transaction around it."""
        with _translated(), self.records.connect() as connection:
            yield connection if _is_sqlite(connection) else connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def read_series(self) -> Iterator[Connection]:
        """Like :meth:`read`, for telemetry and metric points."""
        with _translated(), _snapshot(self.series) as connection:
            yield connection

    @contextmanager
    def write_series(self) -> Iterator[Connection]:
        """Like :meth:`write`, for telemetry and metric points."""
        with _translated(), _turn(self.series, self.series_turn), self.series.connect() as connection, _begun(connection):
            yield connection

    def close(self) -> None:
        """Return every connection; the object is not used afterwards."""
        self.records.dispose()
        if self.series is not self.records:
            self.series.dispose()


def open_database(url: str | None, folder: Path) -> Database:
    """Engines for ``url`` (PostgreSQL), or for the two SQLite files in ``folder`` when it is None. Opens nothing yet."""
    if url is None:
        return Database(_sqlite_engine(folder / "records.db"), _sqlite_engine(folder / "series.db"))
    engine = create_engine(_postgres_url(url), pool_size=5, max_overflow=15, pool_pre_ping=True)
    return Database(engine, engine)


def _postgres_url(url: str) -> URL:
    """Raises InvalidSetting (never with the URL in it: it may hold a password), MissingExtra."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidSetting(name="database", value="***", problem="it is not a URL", source=_DATABASE_SOURCE) from None
    if parsed.get_backend_name() not in ("postgres", "postgresql"):
        problem = f"{parsed.get_backend_name()} is not supported; use postgresql://…, or nothing for SQLite"
        raise InvalidSetting(name="database", value="***", problem=problem, source=_DATABASE_SOURCE)
    if importlib.util.find_spec("psycopg") is None:
        raise MissingExtra(what="PostgreSQL", module="psycopg", extra="postgres")
    return parsed.set(drivername="postgresql+psycopg")


def _sqlite_engine(path: Path) -> Engine:
    # SQLAlchemy must not begin by itself: `_begun` does: IMMEDIATE for writers, a snapshot for readers.
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=5, max_overflow=60, isolation_level="AUTOCOMMIT")
    # Created by us, for the owner only, before SQLite would create it for everybody; its -wal and -shm take this mode over.
    event.listen(engine, "do_connect", lambda *_: path.touch(mode=0o600))
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cache_size=-2000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """Reads that all see the same moment; PostgreSQL's default would show each statement a later one."""
    with engine.connect() as connection:
        if not _is_sqlite(connection):
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with _begun(connection, _READING):
            yield connection


@contextmanager
def _turn(engine: Engine, lock: threading.Lock) -> Iterator[None]:
    if engine.dialect.name != "sqlite":
        yield
        return
    if not lock.acquire(timeout=BUSY_TIMEOUT_MS / 1000):
        raise DatabaseUnavailable(problem="another writer has kept it for too long")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _begun(connection: Connection, begin: Prepared = _WRITING) -> Iterator[None]:
    if not _is_sqlite(connection):
        with connection.begin():
            yield
        return
    begin.run(connection)
    try:
        yield
    except BaseException:
        # SQLite ends a transaction itself when the disk is full; a second end would hide why.
        if cast(sqlite3.Connection, connection.connection.dbapi_connection).in_transaction:
            _ROLLBACK.run(connection)
        raise
    _COMMIT.run(connection)


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


@contextmanager
def _translated() -> Iterator[None]:
    """A full disk, a lock or a lost server is nobody's bug: say so, without the SQL."""
    try:
        yield
    except OperationalError as problem:
        raise DatabaseUnavailable(problem=_plain(problem)) from problem


def _plain(problem: DBAPIError) -> str:
    return " ".join(str(problem.orig).split())
