"""The figures of the registry's records: reading among many versions, and many clients that register at once.

    python -m loadtests.bench_registry [--database sqlite|postgresql|both] [--versions 100000] [--clients 200]

Reads are timed as a client sees them, over HTTP on one connection, beside a bare indexed SELECT of the same rows on the
same database. Registrations (one request each, a small model inside it) are counted beside bare commits: as many
connections as clients, each inserting one row per transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from sqlalchemy import Connection, Table

from hedgerow.contracts.api import RegisterModel
from hedgerow.contracts.model import FileEntry, ModelManifest
from hedgerow.contracts.names import Reference
from registry.store import blobs, model_words, models, tables
from registry.store.database import Database, open_database
from registry.store.model_search import Label, ModelQuery
from registry.store.tables import model_files, model_labels, model_names, model_versions
from tests.fixtures.postgres import fresh_database, running_postgres
from tests.registry_server import RunningServer, running_server

PAGE = 50
BAR_MS, BAR_RATIO, BAR_COMMITS = 20.0, 10.0, 0.3
_AT_ONCE = 10_000
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)
Bare = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Reading:
    """One question, as a path of the API and as the SQL that finds the same rows with the same index."""

    name: str
    path: str
    sql: str
    values: tuple[Any, ...]
    query: ModelQuery | Reference


_BY_LABEL = (
    "SELECT v.manifest FROM model_labels l JOIN model_versions v ON v.name = l.name AND v.version = l.version"
    " WHERE l.kind = 'tag' AND l.key = ? AND l.lookup = ?"
    f" ORDER BY l.created_at DESC, l.name DESC, l.version DESC LIMIT {PAGE + 1}"
)
READINGS = (
    Reading(
        "first page",
        f"/api/v1/models?limit={PAGE}",
        f"SELECT manifest FROM model_versions ORDER BY created_at DESC, name DESC, version DESC LIMIT {PAGE + 1}",
        (),
        ModelQuery(),
    ),
    Reading(
        "tag on one in 2",
        f"/api/v1/models?limit={PAGE}&tag=half%3Dyes",
        _BY_LABEL,
        ("half", "yes"),
        ModelQuery(tags=(Label("half", "yes"),)),
    ),
    Reading(
        "tag on one in 1 000",
        f"/api/v1/models?limit={PAGE}&tag=rare%3D7",
        _BY_LABEL,
        ("rare", "7"),
        ModelQuery(tags=(Label("rare", "7"),)),
    ),
    Reading(
        "show",
        "/api/v1/models/model-7:11",
        "SELECT manifest FROM model_versions WHERE name = ? AND version = ?",
        ("model-7", 11),
        Reference("model-7", 11),
    ),
)


def fill(database: Database, versions: int) -> None:
    """``versions`` versions of one in a hundred names: the rows that registering makes, written many at a time."""
    names = versions // 100
    with database.write() as connection:
        blobs.record(connection, _digest(b"weights"), 7, _FIRST)
        counted = [{"name": f"model-{name}", "last_version": len(range(name, versions, names))} for name in range(names)]
        _write(connection, model_names, counted)
    for start in range(0, versions, _AT_ONCE):
        made = [_manifest(number, names) for number in range(start, min(start + _AT_ONCE, versions))]
        with database.write() as connection:
            _write(connection, model_versions, [models.version_row(one) for one in made])
            for table, rows_of in (
                (model_files, models.file_rows),
                (model_labels, model_words.label_rows),
                (tables.model_words, model_words.word_rows),
            ):
                _write(connection, table, [row for one in made for row in rows_of(one)])


def _manifest(number: int, names: int) -> ModelManifest:
    tags = {"half": "yes" if number % 2 else "no", "rare": str(number % 1000), "number": str(number)}
    entry = FileEntry(path="model.onnx", digest=_digest(b"weights"), size_bytes=7)
    request = RegisterModel(name=f"model-{number % names}", files=[entry], tags=tags, framework="onnx")
    return models.manifest_of(request, number // names + 1, _FIRST + timedelta(seconds=number))


def _write(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    if connection.dialect.name == "sqlite":
        connection.execute(table.insert(), rows)
        return
    driver: Any = connection.connection.dbapi_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row([row[column] for column in columns])


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def bare_reader(server: RunningServer, url: str | None) -> Iterator[Bare]:
    """Asks the database directly, over one connection."""
    if url is None:
        lite = sqlite3.connect(server.workspace / "records.db")
        yield lambda sql, values: lite.execute(sql, values).fetchall()
        lite.close()
    else:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            yield lambda sql, values: connection.execute(sql.replace("?", "%s").encode(), values).fetchall()


def p95_ms(action: Callable[[], object], rounds: int) -> float:
    action()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.quantiles(times, n=20)[-1]


def in_process(database: Database, query: ModelQuery | Reference) -> object:
    """What the server does for this reading, without HTTP and without looking at the token."""
    with database.read() as connection:
        return models.get(connection, query) if isinstance(query, Reference) else models.find(connection, query, PAGE)


def read(server: RunningServer, database: Database, bare: Bare, rounds: int) -> None:
    connection = HTTPConnection(urlsplit(server.url).netloc)
    headers = {"authorization": f"Bearer {server.owner_token}"}

    def ask(path: str) -> bytes:
        connection.request("GET", path, headers=headers)
        answered = connection.getresponse()
        body = answered.read()
        assert answered.status == 200, body
        return body

    for reading in READINGS:
        found = json.loads(ask(reading.path))
        expected = len(bare(reading.sql, reading.values))
        assert len(found["items"]) == min(expected, PAGE) if "items" in found else expected == 1, reading.name
        ours = p95_ms(lambda reading=reading: ask(reading.path), rounds)  # type: ignore[misc]  # the loop's variable is bound at once
        beside = p95_ms(lambda reading=reading: bare(reading.sql, reading.values), rounds)  # type: ignore[misc]  # likewise bound
        inside = p95_ms(lambda reading=reading: in_process(database, reading.query), rounds)  # type: ignore[misc]  # likewise bound
        verdict = f"{BAR_MS:.0f} ms {'within' if ours <= BAR_MS else 'OVER'}"
        ratios = f"{ours / beside:5.0f}x over HTTP, {inside / beside:5.1f}x in process"
        verdict += f", {BAR_RATIO:.0f}x {'within' if ours <= BAR_RATIO * beside else 'OVER'}"
        print(f"  {reading.name:20} p95 {ours:6.2f} ms, in process {inside:6.2f} ms, bare {beside:6.3f} ms: {ratios}; {verdict}")
    connection.close()


def bare_commits(url: str | None, clients: int, seconds: float) -> float:
    """Commits a second: ``clients`` connections, each one row in one transaction at a time."""
    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch, "bare.db"))
        if url is None:
            with sqlite3.connect(path) as first:
                first.execute("PRAGMA journal_mode=WAL")
                first.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, x TEXT)")
            first.close()
        else:
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as made:
                made.execute("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, x text)")
        counts: list[int] = []
        barrier = threading.Barrier(clients)
        threads = [
            threading.Thread(target=_commit_for, args=(url, path, barrier, seconds, counts), daemon=True) for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / seconds


def _commit_for(url: str | None, path: str, barrier: threading.Barrier, seconds: float, counts: list[int]) -> None:
    connection: Any
    if url is None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=60)
        connection.execute("PRAGMA synchronous=FULL")
        statements = ("BEGIN IMMEDIATE", "INSERT INTO bare (x) VALUES ('one')", "COMMIT")
    else:
        connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
        statements = ("BEGIN", "INSERT INTO bare (x) VALUES ('one')", "COMMIT")
    barrier.wait()
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for statement in statements:
            connection.execute(statement)
        count += 1
    counts.append(count)
    connection.close()


async def _register_for(netloc: str, token: str, client: int, end: float, times: list[float]) -> None:
    host, _, port = netloc.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    number = 0
    while time.perf_counter() < end:
        content = f"weights {client} {number}".encode()
        body = json.dumps(
            {
                "name": f"client-{client}",
                "files": [{"path": "model.bin", "digest": _digest(content), "size_bytes": len(content)}],
                "inline": {_digest(content): base64.b64encode(content).decode()},
                "tags": {"client": str(client)},
            }
        ).encode()
        head = (
            f"POST /api/v1/models HTTP/1.1\r\nHost: {netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        started = time.perf_counter()
        writer.write(head.encode() + body)
        answered = await reader.readuntil(b"\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 201"), answered + await reader.read(4000)
        length = next(line for line in answered.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        manifest = json.loads(await reader.readexactly(int(length.partition(b":")[2])))
        times.append(time.perf_counter() - started)
        number += 1
        assert manifest["version"] == number, manifest
    writer.close()


def register(server: RunningServer, url: str | None, clients: int, seconds: float) -> None:
    bare = bare_commits(url, clients, seconds)
    times: list[float] = []

    async def everybody() -> None:
        end = time.perf_counter() + seconds
        netloc = urlsplit(server.url).netloc
        await asyncio.gather(*(_register_for(netloc, server.owner_token, n, end, times) for n in range(clients)))

    started = time.perf_counter()
    asyncio.run(everybody())
    rate = len(times) / (time.perf_counter() - started)
    verdict = "within" if rate >= BAR_COMMITS * bare else "UNDER"
    p99 = statistics.quantiles(times, n=100)[-1]
    ours = f"{rate:7.0f}/s (p99 {p99:.2f} s)"
    print(f"  {clients} clients register      {ours}, bare commits {bare:7.0f}/s, {rate / bare:5.2f}  {verdict}")


def measure(folder: Path, url: str | None, options: argparse.Namespace) -> None:
    database_option = [] if url is None else ["--database", url]
    with running_server(folder, *database_option) as server:
        database = open_database(url, server.workspace)
        started = time.perf_counter()
        fill(database, options.versions)
        if url is not None:
            with database.records.connect() as connection:
                connection.exec_driver_sql("ANALYZE")
                connection.commit()
        print(f"{'SQLite' if url is None else 'PostgreSQL'}, {options.versions} versions ({time.perf_counter() - started:.0f} s)")
        with bare_reader(server, url) as bare:
            read(server, database, bare, options.rounds)
        database.close()
        register(server, url, options.clients, options.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--versions", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores; a page is {PAGE} versions")
    with tempfile.TemporaryDirectory() as scratch:
        if options.database != "postgresql":
            measure(Path(scratch), None, options)
    with tempfile.TemporaryDirectory() as scratch:
        if options.database != "sqlite":
            with running_postgres() as server, fresh_database(server) as url:
                measure(Path(scratch), url, options)


if __name__ == "__main__":
    main()
