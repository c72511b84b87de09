"""The simulated device against the hub's rules, without a network: it speaks the protocol and loses nothing."""

from __future__ import annotations

import base64
import random
from dataclasses import replace

import pytest

from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.seal import seal, unseal
from hedgerow.contracts.status import StatusReport
from hedgerow.contracts.telemetry import Hello, TelemetryBatch
from loadtests.fleet_sim import wire
from loadtests.fleet_sim.device import SEND_AGAIN_S, STREAM, SimDevice
from loadtests.fleet_sim.tally import Tally
from tests.agent_builders import Workspace
from tests.hub_model import HubModel


class Line:
    """A device and a hub's model; ``drops`` says of each message whether it gets lost."""

    def __init__(self, drops: random.Random | None = None, share: float = 0.0) -> None:
        self.config: DeviceConfig = Workspace().config
        self.tally, self.model = Tally(), HubModel()
        self.device = SimDevice(self.config, self.tally, '"body"', 1)
        self.reports: list[StatusReport] = []
        self._drops, self._share = drops, share
        self._key = base64.b64decode(self.config.device_key)
        self._up: list[tuple[str, bytes]] = []
        self.now_s = 100.0

    def connect(self) -> None:
        self.device.send = lambda leaf, payload: self._up.append((leaf, payload))
        self.device.connected(self.now_s, 1.0)
        self.settle()

    def settle(self) -> None:
        while self._up:
            leaf, sealed = self._up.pop(0)
            if self._lost():
                continue
            payload = unseal(self._key, self.config.device_uuid, leaf, sealed)
            if leaf == "hello":
                self._down("welcome", encode(self.model.hello(decode(payload, Hello))))
            elif leaf == "status":
                self.reports.append(decode(payload, StatusReport))
            else:
                ack = self.model.batch(decode(payload, TelemetryBatch))
                if ack is not None:
                    self._down("acks", encode(ack))

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.device.due(self.now_s)
        self.settle()

    def make(self) -> None:
        self.device.make(self.now_s, 0)
        self.settle()

    def _down(self, leaf: str, payload: bytes) -> None:
        if not self._lost():
            self.device.heard(leaf, seal(self._key, self.config.device_uuid, leaf, payload), self.now_s)

    def _lost(self) -> bool:
        return self._drops is not None and self._drops.random() < self._share


def test_messages_made_before_and_in_a_session_arrive_in_order() -> None:
    line = Line()
    for _ in range(5):
        line.make()
    line.connect()
    for _ in range(500):
        line.make()
    assert len(line.model.bodies(STREAM)) == 505
    assert (line.device.waiting, line.tally.acknowledged, line.tally.contradictions) == (0, 505, 0)
    line.pass_time(2.0)
    assert len(line.reports) == 1


@pytest.mark.parametrize("seed", range(8))
def test_with_a_third_of_all_messages_lost_everything_arrives_once(seed: int) -> None:
    line = Line(random.Random(seed), 0.33)
    line.connect()
    chance = random.Random(seed + 100)
    for _ in range(200):
        line.make()
        line.pass_time(chance.uniform(0.0, 1.0))
        if chance.random() < 0.02:
            line.device.disconnected()
            line.connect()
    for _ in range(400):
        line.pass_time(SEND_AGAIN_S)
    assert line.device.waiting == 0
    assert len(line.model.bodies(STREAM)) == 200
    assert line.tally.contradictions == 0


def test_a_refused_hello_is_said_again() -> None:
    line = Line()
    line.model.refuse = "another holds it"
    line.connect()
    before = line.device.in_session
    line.model.refuse = ""
    line.pass_time(6.0)
    assert (before, line.device.in_session) == (False, True)
    assert line.tally.refusals["session"] == 1


def test_percentiles() -> None:
    tally = Tally()
    for took_ms in range(100):
        tally.stored(took_ms / 1000)
    assert tally.percentile_s(0.5) == pytest.approx(0.050)
    assert tally.percentile_s(0.95) == pytest.approx(0.095)
    assert replace(tally, times_ms=type(tally.times_ms)()).percentile_s(0.5) == 0.0


def test_packets_are_read_however_they_are_cut() -> None:
    payload = b"x" * 300
    stream = (
        b"\x20\x02\x00\x00" + b"\x90\x03\x00\x01\x01" + wire.publish(7, b"a/b", payload) + b"\xd0\x00" + b"\x30\x06\x00\x03a/bz"
    )
    whole = list(wire.Reader().feed(stream))
    assert whole == [
        wire.Connected(0),
        wire.Subscribed(granted=True),
        wire.Published("a/b", payload, 7),
        wire.Published("a/b", b"z", 0),
    ]
    for size in (1, 2, 3, 7, 100):
        reader = wire.Reader()
        pieces = [heard for at in range(0, len(stream), size) for heard in reader.feed(stream[at : at + size])]
        assert pieces == whole


def test_what_is_no_mqtt_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        list(wire.Reader().feed(b"\x30\xff\xff\xff\xff\x01"))
