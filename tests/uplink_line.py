"""The device's half of the telemetry protocol (``Uplink``) and ``HubModel`` on one line, in memory; time moves when told."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import strategies as st

from edge_agent.link.uplink import RETRANSMIT_S, Identity, Uplink
from edge_agent.telemetry import appending, dropping, ledger, schema
from edge_agent.telemetry.entries import Entry, Mark, Portion
from hedgerow.contracts.telemetry import Hello, TelemetryAck, TelemetryBatch, Welcome
from tests.agent_builders import DEVICE_UUID
from tests.hub_model import HubModel

STREAM = "telemetry"
Down = Welcome | TelemetryAck


class MemoryBacklog:
    """The buffer's rows on an in-memory database."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        schema.create(self.db)
        self.written: list[str] = []
        self.urgencies: dict[str, int] = {}

    def add(self, count: int, stream: str = STREAM, size: int = 10) -> None:
        for _ in range(count):
            body = f'"{len(self.written)}{"x" * size}"'
            self.written.append(body)
            appending.append(self.db, [Entry(stream, "m", 1, body)])

    def streams(self) -> tuple[str, dict[str, Mark]]:
        return ledger.epoch(self.db), ledger.streams(self.db)

    def urgency(self, stream: str) -> int:
        return self.urgencies.get(stream, 10)

    def read_after(
        self, epoch: str, stream: str, mark: Mark, *, max_messages: int, max_bytes: int, holes: bool = False
    ) -> Portion | None:
        assert epoch == ledger.epoch(self.db)
        most = min(max_messages, 5)
        return ledger.read_after(self.db, stream, mark, max_messages=most, max_bytes=max_bytes, holes=holes)

    def settle(self, stream: str, mark: Mark) -> bool:
        return ledger.settle(self.db, stream, mark)

    def begin_epoch(self) -> str:
        return ledger.begin_epoch(self.db)


@dataclass
class Line:
    """Device, hub, and what is between them. Time moves only when told."""

    backlog: MemoryBacklog = field(default_factory=MemoryBacklog)
    hub: HubModel = field(default_factory=HubModel)
    now_s: float = 100.0
    nonces: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.uplink = self.new_uplink(1)

    def new_uplink(self, starts: int, backfill_per_s: float = 0.0) -> Uplink:
        return Uplink(
            Identity(DEVICE_UUID, f"instance-{starts}", starts, "0.1.0"),
            self.backlog,
            batch_bytes=65_536,
            random=lambda: 0.5,
            nonce=lambda: f"nonce-{next(self.nonces)}",
            backfill_per_s=backfill_per_s,
        )

    def up(self) -> list[Hello | TelemetryBatch]:
        return self.uplink.outgoing(self.now_s, time_ms=0, desired_version=7)

    def answer(self, item: Hello | TelemetryBatch) -> Down | None:
        return self.hub.hello(item) if isinstance(item, Hello) else self.hub.batch(item)

    def down(self, item: Down | None) -> None:
        if isinstance(item, Welcome):
            self.uplink.welcomed(item, self.now_s)
        elif item is not None:
            self.uplink.acknowledged(item, self.now_s)

    def exchange(self, rounds: int = 200) -> None:
        """Let everything pass until nobody has anything to say."""
        for _ in range(rounds):
            items = self.up()
            if not items:
                return
            for answer in [self.answer(item) for item in items]:
                self.down(answer)
        raise AssertionError("they never come to rest")

    def queued(self) -> int:
        return ledger.totals(self.backlog.db).queued_messages


def opened(line: Line) -> Line:
    line.uplink.connected(line.now_s)
    line.exchange()
    assert line.uplink.phase == "open"
    return line


class BadWeather:
    """A line on which answers are lost, doubled and late, and both ends restart."""

    def __init__(self, data: st.DataObject) -> None:
        self.line = Line()
        self.data = data
        self.on_the_way: list[Down] = []
        self.starts = 1
        self.line.uplink.connected(self.line.now_s)

    def happen(self, event: str) -> None:
        getattr(self, event.replace("-", "_"))()

    def write(self) -> None:
        self.line.backlog.add(self.data.draw(st.integers(1, 12)))

    def send(self) -> None:
        arrived = [item for item in self.line.up() if self.data.draw(st.integers(0, 3))]
        self.on_the_way += [answer for item in arrived if (answer := self.line.answer(item)) is not None]

    def deliver(self) -> None:
        if self.on_the_way:
            place = self.data.draw(st.integers(0, len(self.on_the_way) - 1))
            self.line.down(self.on_the_way[place])
            if not self.data.draw(st.booleans()):
                del self.on_the_way[place]  # else it comes again later

    def tick(self) -> None:
        self.line.now_s += self.data.draw(st.sampled_from((0.5, RETRANSMIT_S, 60.0)))

    def cut(self) -> None:
        self.line.uplink.disconnected()
        self.line.uplink.connected(self.line.now_s)

    def restart_agent(self) -> None:
        self.starts += 1
        self.line.uplink = self.line.new_uplink(self.starts)
        self.line.uplink.connected(self.line.now_s)

    def restart_hub(self) -> None:
        self.line.hub.session = None

    def thin(self) -> None:
        if ledger.streams(self.line.backlog.db):
            dropping.thin(self.line.backlog.db, STREAM, self.data.draw(st.integers(1, 1000)))

    def drop(self) -> None:
        dropping.evict_oldest(self.line.backlog.db, self.data.draw(st.integers(1, 1000)), [STREAM])
