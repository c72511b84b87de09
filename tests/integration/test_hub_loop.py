"""The hub's loop with real parts and a hand-made link: what trips it, what it waits for, what wakes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hedgerow.clock import SystemClock
from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.document import encode
from hedgerow.contracts.seal import device_key, seal
from registry.errors import DatabaseUnavailable
from registry.hub.desired import DesiredStates
from registry.hub.hub import Hub
from registry.hub.inbox import Inbox
from registry.hub.intake import Handled, Intake
from registry.hub.link import Downlink, Uplink
from registry.hub.notes import Notes
from registry.stop_signals import StopSignals
from registry.store import edge_deployments, fleet
from registry.store.database import Database
from registry.wakeups_socket import SocketReceiver, SocketWakeups
from tests.hub_parts import manifest, say_hello
from tests.registry_stores import ready_database
from tests.waiting import wait_for

MASTER = b"m" * 32


class Published:
    """A link that keeps what it is given."""

    def __init__(self) -> None:
        self.downlinks: list[Downlink] = []

    def publish(self, downlink: Downlink) -> None:
        self.downlinks.append(downlink)

    def close(self) -> None:
        pass

    def count(self, leaf: str) -> int:
        return sum(downlink.leaf == leaf for downlink in self.downlinks)


class TroubledIntake(Intake):
    """Trips over one message, and finds the database away as often as it is told."""

    away = 0

    def handle(self, uplinks: Sequence[Uplink], now: datetime, now_s: float) -> Handled:
        if self.away > 0:
            self.away -= 1
            raise DatabaseUnavailable(problem="database or disk is full")
        if any(uplink.payload == b"poison" for uplink in uplinks):
            raise ZeroDivisionError
        return super().handle(uplinks, now, now_s)


class Loop:
    """A hub that runs on a thread of this process."""

    def __init__(self, database: Database, run: Path) -> None:
        self.database = database
        self.inbox, self.link, self.notes = Inbox(), Published(), Notes()
        self.wakeups, self.receiver = SocketWakeups(run), SocketReceiver(run, "hub")
        self.intake = TroubledIntake(database, MASTER, self.notes)
        self.stop = StopSignals(watch_parent=False)
        desired = DesiredStates(database, {"k": lambda _: b"signature"}, "me", self.notes)
        hub = Hub(
            inbox=self.inbox,
            link=self.link,
            wakeups=self.receiver,
            intake=self.intake,
            desired=desired,
            notes=self.notes,
            clock=SystemClock(),
        )
        self.thread = threading.Thread(target=hub.run, args=(self.stop,))

    def enroll(self, name: str) -> str:
        with self.database.write() as connection:
            return fleet.enroll(connection, EnrollDevice(name=name), datetime.now(UTC)).uuid

    def greet(self, device_uuid: str) -> None:
        key = device_key(MASTER, device_uuid, fleet.FIRST_KEY_GENERATION)
        self.inbox.put(Uplink(device_uuid, "hello", seal(key, device_uuid, "hello", encode(say_hello(device_uuid)))))


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with ready_database(tmp_path / "workspace", None) as database:
        made = Loop(database, tmp_path / "workspace" / "run")
        yield made
        made.stop.request()
        if made.thread.ident is not None:
            made.thread.join(10)
            assert not made.thread.is_alive()
        made.receiver.close()
        made.wakeups.close()
        made.inbox.close()


def test_a_poisoned_message_is_dropped_alone(loop: Loop) -> None:
    devices = [loop.enroll(f"pump-{number}") for number in range(3)]
    loop.greet(devices[0])
    loop.inbox.put(Uplink(devices[1], "telemetry", b"poison"))
    loop.greet(devices[1])
    loop.greet(devices[2])
    loop.thread.start()
    wait_for(lambda: loop.link.count("welcome") == 3, what="three welcomes")
    assert loop.notes.counts["poisoned"] == 1


def test_nothing_is_answered_while_the_database_is_away(loop: Loop) -> None:
    uuid = loop.enroll("pump")
    loop.intake.away = 3
    loop.greet(uuid)
    loop.thread.start()
    wait_for(lambda: loop.link.count("welcome") == 1, what="the welcome after the database came back")
    assert loop.intake.away == 0


def test_it_stops_while_the_database_is_away(loop: Loop) -> None:
    uuid = loop.enroll("pump")
    loop.intake.away = 1_000_000
    loop.greet(uuid)
    loop.thread.start()
    wait_for(lambda: loop.intake.away < 999_999, what="the hub finding the database away")
    loop.stop.request()
    loop.thread.join(10)
    assert not loop.thread.is_alive()
    assert loop.link.downlinks == []


def test_a_wake_up_brings_desired_states_out_and_a_reconnect_brings_them_again(loop: Loop) -> None:
    uuid = loop.enroll("pump")
    loop.thread.start()
    with loop.database.write() as connection:
        edge_deployments.put(connection, manifest("d", m=["run"]), datetime.now(UTC))
    loop.wakeups.wake("hub")
    wait_for(lambda: loop.link.count("desired") == 1, what="the desired state")
    loop.inbox.note_connected()
    wait_for(lambda: loop.link.count("desired") == 2, what="the desired state again")
    loop.greet(uuid)
    wait_for(lambda: loop.link.count("desired") == 3, what="the desired state after a hello")
    assert len({downlink.payload for downlink in loop.link.downlinks if downlink.leaf == "desired"}) == 1
