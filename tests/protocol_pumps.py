"""Devices that send without a pause, and the invariant: what was acknowledged is in the hub's database, and once."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

from hedgerow.contracts.telemetry import TelemetryAck
from registry.store import telemetry
from tests.hub_parts import HubPlace, ProtocolDevice, Tape
from tests.waiting import wait_for

_AGAIN_S = 0.4


class Pump(threading.Thread):
    """A device that sends without a pause, several batches on their way at once, until it is told to stop."""

    def __init__(self, place: HubPlace, name: str, seed: int) -> None:
        super().__init__(name=name)
        self.device: ProtocolDevice = place.device(place.enroll(name))
        self.tape = Tape(self.device.uuid)
        self.acked = 0
        # Messages that were looked at already, and the id of the last of them.
        self.checked, self.checked_id = 0, 0
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
    """Looks at what came since the last look: all of it each time would take longer and longer. The end looks at all of it."""
    for pump in running:
        acked = pump.acked
        with place.database.read_series() as connection:
            found = telemetry.after(connection, 10_000_000, pump.checked_id, device_uuid=pump.device.uuid)
        wanted = [message.body for message in pump.tape.messages[pump.checked : acked]]
        assert [row.body for row in found[: len(wanted)]] == wanted
        if wanted:
            pump.checked, pump.checked_id = acked, found[len(wanted) - 1].id
