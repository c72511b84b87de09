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

from hedgerow.contracts.telemetry import TelemetryAck
from registry.store import telemetry
from tests.fixtures.postgres import PostgresServer
from tests.hub_parts import HubPlace, ProtocolDevice, Tape, hub_place
from tests.waiting import wait_for

_AGAIN_S = 0.4


class Pump(threading.Thread):
    """A device that sends without a pause, several batches on their way at once, until it is told to stop."""

    def __init__(self, place: HubPlace, name: str, seed: int) -> None:
        super().__init__(name=name)
        self.device: ProtocolDevice = place.device(place.enroll(name))
        self.tape = Tape(self.device.uuid)
        self.acked = 0
        self._random = random.Random(seed)
        self._done = threading.Event()
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            self.device.greet()
            while not self._done.is_set():
                self._send_some()
        except BaseException as problem:
            self.problem = problem
            raise

    def finish(self) -> None:
        self._done.set()
        self.join(60)
        assert not self.is_alive(), f"{self.name} waits for an ack in vain at {self.acked}"
        assert self.problem is None

    def _send_some(self) -> None:
        first = len(self.tape.messages) + 1
        self.tape.record(*(f'{{"n": {first + n}}}' for n in range(self._random.randint(5, 60))))
        last = len(self.tape.messages)
        cuts = sorted({first, *(self._random.randint(first, last) for _ in range(3))})
        ends = [*(cut - 1 for cut in cuts[1:]), last]
        batches = [self.tape.batch(begin, end, self.device.session) for begin, end in zip(cuts, ends, strict=True)]

        def acknowledged() -> bool:
            for batch in batches:
                if batch.messages[-1].sequence > self.acked:
                    self.device.publish("telemetry", batch)
            while self.acked < last and (payload := self.device.received("acks", _AGAIN_S)) is not None:
                ack = self.device.open_sealed("acks", payload, TelemetryAck)
                assert ack.refused != "chain-mismatch"
                assert ack.chain == self.tape.chains[ack.watermark]
                self.acked = max(self.acked, ack.watermark)
            return self.acked >= last

        wait_for(acknowledged, timeout_s=60, what=f"an ack for {last}")


def stored(place: HubPlace, pump: Pump) -> list[str]:
    """Bodies in order of arrival."""
    with place.database.read_series() as connection:
        return [row.body for row in telemetry.after(connection, 10_000_000, 0, device_uuid=pump.device.uuid)]


@contextlib.contextmanager
def pumps(place: HubPlace, count: int) -> Iterator[list[Pump]]:
    """Started; at the end everything that was recorded has been acknowledged and is there exactly once."""
    made = [Pump(place, f"pump-{number}", number) for number in range(count)]
    for pump in made:
        pump.start()
    wait_for(lambda: all(pump.acked for pump in made), what="the first acks")
    yield made
    for pump in made:
        pump.finish()
    for pump in made:
        assert pump.acked == len(pump.tape.messages)
        assert stored(place, pump) == [message.body for message in pump.tape.messages]


def nothing_acknowledged_is_missing(place: HubPlace, running: list[Pump]) -> None:
    for pump in running:
        acked = pump.acked
        found = stored(place, pump)
        assert len(found) >= acked
        assert found[:acked] == [message.body for message in pump.tape.messages[:acked]]


@pytest.mark.parametrize("kills", [12, pytest.param(300, marks=pytest.mark.soak)])
@pytest.mark.timeout(1800)
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
