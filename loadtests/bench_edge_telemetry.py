"""Telemetry on a device and up to the hub: durable ingest, drain through a real Mosquitto, a million queued messages.

    python -m loadtests.bench_edge_telemetry [--seconds 10] [--drain 100000] [--queued 1000000]

Beside each figure stands what the same disk and cores gave in the same run for the least that could do it: a bare SQLite that
commits the same bytes in groups, one write and fdatasync after the other. Needs Mosquitto (``make test-parts``).
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edge_agent.telemetry.outbox import Entry, Limits, Outbox, Receipt
from edge_agent.telemetry.tokens import Tokens
from hedgerow.contracts.device import DeviceConfig
from registry.store.tables import watermarks
from tests.agent_builders import Workspace
from tests.agent_process import AgentProcess
from tests.edge_place import DeviceFile
from tests.fixtures.parts import program
from tests.fixtures.real_process import RealProcess
from tests.hub_parts import HubPlace, hub_place
from tests.waiting import free_port, wait_for

BODY = '{"machine": "press-1", "values": "' + "x" * 986 + '"}'
QUOTA = 8 << 30
GROUP = 512
BATCH = 100
CONNECTIONS = 32
BAR = 5000.0


def row(what: str, value: float, unit: str, bar: str, beside: str = "") -> None:
    print(f"{what:58} {value:10,.1f} {unit:6} {bar:12} {beside}", flush=True)


def fsyncs(folder: Path, seconds: float) -> float:
    """Writes of one page, each made durable before the next, per second."""
    page, count = os.urandom(4096), 0
    with (folder / "fsyncs").open("wb", buffering=0) as file:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            file.write(page)
            os.fdatasync(file.fileno())
            count += 1
    return count / seconds


def bare_sqlite(folder: Path, seconds: float) -> float:
    """The same bytes by a bare SQLite (WAL, FULL) in groups, per second: no chain, no index, no keys."""
    db = sqlite3.connect(folder / "bare", isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 400"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
    started, count = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO messages (body) VALUES (?)", [(BODY,)] * GROUP)
        db.execute("COMMIT")
        count += GROUP
    rate = count / (time.perf_counter() - started)
    db.close()
    return rate


def into_the_buffer(folder: Path, seconds: float, *, keys: bool) -> tuple[float, str]:
    """(messages per second, bytes that the disk had to take for one, in words). Messages one by one, as the local MQTT server
    hands them over: many on their way at once. With ``keys`` each has an idempotency key, spread like random ones."""
    outbox = Outbox(folder / f"direct-{keys}", Limits(QUOTA, 0), lambda: None, lambda _problem: None)
    started, count, written = time.perf_counter(), 0, written_bytes()
    waiting: list[Future[list[Receipt]]] = []
    while time.perf_counter() < started + seconds:
        key = f"{count * 7919 % 1_000_003}-{count}" if keys else None
        waiting.append(outbox.submit_all([Entry("telemetry", "m", 1, BODY, key)]))
        count += 1
        if len(waiting) >= 2 * GROUP:
            for future in waiting[:GROUP]:
                future.result()
            del waiting[:GROUP]
    for future in waiting:
        future.result()
    rate = count / (time.perf_counter() - started)
    outbox.close()
    return rate, f"{(written_bytes() - written) / count / 1000:.1f} kB written for each"


def written_bytes() -> int:
    """By this process, to disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def over_http(agent: AgentProcess, token: str, seconds: float, *, batch: int) -> tuple[float, str]:
    """Messages per second with so many connections, each waiting for its answer; p95 of an answer, the agent's CPU."""
    body = BODY if batch == 1 else "\n".join([BODY] * batch)
    kind = "application/json" if batch == 1 else "application/x-ndjson"
    head = f"POST /telemetry HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\ncontent-type: {kind}\r\n"
    begun, asked, times = 0, dict[socket.socket, float](), list[float]()

    def ask(connection: socket.socket) -> None:
        nonlocal begun
        begun += 1
        # Sent by one thread for all: 32 of them would measure how Python's threads wake one another here.
        connection.sendall(f"{head}idempotency-key: {batch}-{begun}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        asked[connection] = time.perf_counter()

    with ExitStack() as opened, selectors.DefaultSelector() as selector:
        for _ in range(CONNECTIONS):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", agent.port)))
            selector.register(connection, selectors.EVENT_READ)
            ask(connection)
        started, cpu = time.perf_counter(), cpu_s(agent.process.pid)
        while time.perf_counter() < started + seconds:
            for key, _ in selector.select():
                answered = key.fileobj
                assert isinstance(answered, socket.socket)
                answer = answered.recv(4096)
                times.append(time.perf_counter() - asked[answered])
                if not answer.startswith(b"HTTP/1.1 201"):
                    raise SystemExit(answer.decode())
                ask(answered)
        took, used = time.perf_counter() - started, cpu_s(agent.process.pid) - cpu
    count = len(times) * batch
    p95_ms, cpu_ms = 1000 * statistics.quantiles(times, n=20)[-1], 1e6 * used / count
    return count / took, f"p95 {p95_ms:.0f} ms, agent's CPU per 1,000: {cpu_ms:.0f} ms"


def fill(path: Path, messages: int) -> None:
    """A buffer with so many messages."""
    path.parent.mkdir(parents=True)
    outbox = Outbox(path, Limits(QUOTA, 0), lambda: None, lambda _problem: None)
    for _ in range(messages // 1000):
        outbox.append_all([Entry("telemetry", "m", 1, BODY)] * 1000)
    outbox.close()


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quota_options() -> list[str]:
    return ["--quota-bytes", str(QUOTA)]


class Offline:
    """A device whose broker is not there."""

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config

    def write_toml(self, path: Path) -> Path:
        return Workspace(device_key=self.config.key_bytes(), uuid=self.config.device_uuid).write_toml(path)


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    port = free_port()
    folder.mkdir()
    (folder / "conf").write_text(f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\n")
    process = RealProcess([program("mosquitto"), "-c", str(folder / "conf")], log=folder / "log").start()

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    try:
        process.wait_until(answers, what="Mosquitto")
        yield port
    finally:
        process.stop()


def stored(place: HubPlace) -> int:
    with place.database.read_series() as connection:
        return sum(row.watermark for row in connection.execute(watermarks.select()))


def drain(folder: Path, messages: int) -> tuple[float, float, float]:
    """(messages per second from the first to the last in the hub's database, CPU seconds of agent and hub per 1 000)."""
    folder.mkdir()
    with mosquitto(folder / "broker") as port, hub_place(folder / "hub", broker_port=port) as place:
        device = DeviceFile(place, "pump")
        fill(folder / "device" / "state" / "outbox.sqlite", messages)
        with AgentProcess(device, folder / "device", *quota_options()) as agent:
            assert place.hub is not None
            wait_for(lambda: stored(place) > 0, timeout_s=60, what="the first message in the hub")
            begun, started = stored(place), time.perf_counter()
            cpu = cpu_s(agent.process.pid), cpu_s(place.hub.pid)
            wait_for(lambda: stored(place) >= messages, timeout_s=600, what="the last message in the hub")
            took = time.perf_counter() - started
            used = [now - before for now, before in zip((cpu_s(agent.process.pid), cpu_s(place.hub.pid)), cpu, strict=True)]
            done = (messages - begun) / 1000
            return 1000 * done / took, used[0] / done, used[1] / done


def start_seconds(device: Offline, folder: Path) -> tuple[float, float]:
    """(seconds until the local port answers, MB then)."""
    agent = AgentProcess(device, folder, *quota_options())
    begun = time.perf_counter()
    with agent:
        return time.perf_counter() - begun, rss_mb(agent.process.pid)


def queued(folder: Path, device: Offline, messages: int) -> None:
    folder.mkdir()
    fill(folder / "full" / "state" / "outbox.sqlite", messages)
    # In turn, so that other programs weigh on both.
    pairs = [(start_seconds(device, folder / "full"), start_seconds(device, folder / f"empty-{turn}")) for turn in range(4)][1:]
    full, empty = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    size_gb = (folder / "full" / "state" / "outbox.sqlite").stat().st_size / 1e9
    took, beside = statistics.median(s for s, _ in full), statistics.median(s for s, _ in empty)
    what = f"agent start with {messages:,} messages ({size_gb:.1f} GB)"
    row(what, took, "s", "bar 1", f"{beside:.2f} s with none")
    row("its memory (RSS) then", full[-1][1], "MB", "flat", f"{empty[-1][1]:.1f} MB with none")


def ingest(folder: Path, device: Offline, seconds: float) -> None:
    limit, syncs = bare_sqlite(folder, seconds), fsyncs(folder, min(seconds, 3.0))
    beside: Callable[[float], str] = lambda rate: f"{rate / limit:.2f} x a bare SQLite's {limit:,.0f}/s"  # noqa: E731 - one phrase, three uses
    row("writes of one page with fdatasync", syncs, "/s", "", "the disk's own limit for one writer")
    for keys, words in ((False, "into the buffer, 1 kB, one by one"), (True, "the same with a random idempotency key each")):
        direct, wear = into_the_buffer(folder, seconds, keys=keys)
        row(words, direct, "msg/s", "bar 5,000", f"{beside(direct)}, {wear}")
    with AgentProcess(device, folder / "ingest", *quota_options()) as agent:
        token = Tokens(device.config.key_bytes()).of("m")
        single, single_words = over_http(agent, token, seconds, batch=1)
        row(
            f"over HTTP, one message a request, {CONNECTIONS} connections",
            single,
            "msg/s",
            "",
            f"{beside(single)}, {single_words}",
        )
        many, many_words = over_http(agent, token, seconds, batch=BATCH)
        row(f"over HTTP, {BATCH} messages a request", many, "msg/s", "bar 5,000", f"{beside(many)}, {many_words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--drain", type=int, default=100_000)
    parser.add_argument("--queued", type=int, default=1_000_000)
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as scratch:
        folder = Path(scratch)
        device = Offline(Workspace().config)
        ingest(folder, device, options.seconds)
        if options.drain:
            rate, agent_s, hub_s = drain(folder / "drain", options.drain)
            beside = f"CPU per 1,000: agent {agent_s * 1000:.0f} ms, hub {hub_s * 1000:.0f} ms"
            row(f"drain of {options.drain:,} through Mosquitto into the hub's database", rate, "msg/s", "bar 5,000", beside)
        if options.queued:
            queued(folder / "queued", device, options.queued)


if __name__ == "__main__":
    main()
