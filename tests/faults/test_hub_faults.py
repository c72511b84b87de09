"""Hub, broker and database killed, cut off and filled up under load: what was acknowledged is stored, and stored once."""

from __future__ import annotations

import contextlib
import random
import resource
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from registry.store import telemetry
from tests.fixtures.postgres import PostgresServer
from tests.hub_parts import Tape, hub_place
from tests.protocol_pumps import nothing_acknowledged_is_missing, pumps
from tests.waiting import wait_for


@pytest.mark.parametrize("kills", [12, pytest.param(300, marks=pytest.mark.soak)])
@pytest.mark.timeout(7200)
def test_a_hub_killed_at_any_moment_loses_and_doubles_nothing(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    with hub_place(tmp_path) as place, pumps(place, 3) as running:
        pause = threading.Event()
        for _ in range(kills):
            before = [pump.acked for pump in running]
            wait_for(lambda: any(pump.acked > acked for pump, acked in zip(running, before, strict=True)), what="progress")  # noqa: B023 - called at once
            pause.wait(chance.uniform(0.0, 0.3))
            assert place.hub is not None
            place.hub.kill()
            nothing_acknowledged_is_missing(place, running)
            place.start_hub()


def test_a_broker_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with hub_place(tmp_path) as place, pumps(place, 2) as running:
        for _ in range(3):
            assert place.broker is not None
            place.broker.kill()
            nothing_acknowledged_is_missing(place, running)
            before = [pump.acked for pump in running]
            place.start_broker()
            wait_for(
                lambda: all(pump.acked > acked for pump, acked in zip(running, before, strict=True)),  # noqa: B023 - called at once
                timeout_s=30,
                what="acks through the new broker",
            )


def memory_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def test_a_disk_that_takes_no_more_stops_acks_and_nothing_else(tmp_path: Path) -> None:
    """The hub's files may not grow any more (EFBIG): SQLite fails as it does on a full disk."""
    with hub_place(tmp_path) as place:
        uuid = place.enroll("pump")
        device = place.device(uuid)
        session = device.greet().session or ""
        tape = Tape(uuid)
        tape.record(*("x" * 1000 for _ in range(200)))
        device.ship(tape.batch(1, 100, session))
        assert place.hub is not None
        unlimited = resource.prlimit(place.hub.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(place.hub.pid, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
        log_before = len(place.hub.log_text())
        device.publish("telemetry", tape.batch(101, 200, session))
        flood = tape.batch(101, 200, session)
        for _ in range(600):
            device.publish("telemetry", flood)
        assert device.received("acks", 2.0) is None
        assert place.hub.is_running
        assert memory_kb(place.hub.pid) < 130_000
        resource.prlimit(place.hub.pid, resource.RLIMIT_FSIZE, unlimited)
        assert device.ship(tape.batch(101, 200, session)).watermark == 200
        # A log on a full disk is cut as well: what matters is that the hub lived to write it.
        assert len(place.hub.log_text()) >= log_before
        with place.database.read_series() as connection:
            assert [row.sequence for row in telemetry.after(connection, 1000, 0)] == list(range(1, 201))


def test_a_database_server_that_is_away_is_waited_for(tmp_path: Path, postgres_server: PostgresServer) -> None:
    with own_database(postgres_server) as url, hub_place(tmp_path, database_url=url) as place:
        uuid = place.enroll("pump")
        device = place.device(uuid)
        session = device.greet().session or ""
        tape = Tape(uuid)
        tape.record(*("{}" for _ in range(20)))
        device.ship(tape.batch(1, 10, session))
        assert place.hub is not None
        with stopped(postgres_server):
            device.publish("telemetry", tape.batch(11, 20, session))
            assert device.received("acks", 1.5) is None
            assert place.hub.is_running
        ack = device.ship(tape.batch(11, 20, session))
        assert (ack.watermark, ack.refused) == (20, None)
        with place.database.read_series() as connection:
            assert [row.sequence for row in telemetry.after(connection, 1000, 0)] == list(range(1, 21))
        assert "Traceback" not in place.hub.log_text()


@contextlib.contextmanager
def own_database(server: PostgresServer) -> Iterator[str]:
    """Like the fixture ``postgres_url``, but without a connection that would not survive the server."""
    name = f"test_{secrets.token_hex(6)}"
    quoted = sql.Identifier(name)
    with contextlib.closing(server.connect("postgres")) as admin:
        admin.execute(sql.SQL("create database {} template template0").format(quoted))
    try:
        yield server.url(name)
    finally:
        with contextlib.closing(server.connect("postgres")) as admin:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(quoted))


@contextlib.contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    server.process.stop(first=signal.SIGINT)
    try:
        yield
    finally:
        server.process.start().wait_until(server.answers, what="PostgreSQL to answer again")
