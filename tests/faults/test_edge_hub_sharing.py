"""Two hubs share the devices: each takes a part, either may be killed, and nothing is lost, doubled or out of order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.brokers import MosquittoFactory
from tests.fixtures.real_process import RealProcess
from tests.hub_parts import HubPlace, hub_place
from tests.protocol_pumps import Pump, nothing_acknowledged_is_missing, pumps
from tests.waiting import wait_for

KILLS = 6


@pytest.fixture
def shared_place(tmp_path: Path, mosquitto: MosquittoFactory, postgres_url: str) -> Iterator[tuple[HubPlace, Path]]:
    """Two hubs on Mosquitto (MQTT 5) and PostgreSQL, and the broker's log."""
    with mosquitto() as broker, hub_place(tmp_path, broker_port=broker.port, database_url=postgres_url, share=True) as place:
        place.start_second_hub()
        for hub in both(place):
            wait_for(lambda hub=hub: "Connected to the broker" in hub.log_text(), timeout_s=30, what="the subscription")  # type: ignore[misc]  # bound for this round
            assert "offers shared subscriptions" in hub.log_text()
        yield place, broker.process.log


def both(place: HubPlace) -> list[RealProcess]:
    assert place.hub is not None
    assert place.second_hub is not None
    return [place.hub, place.second_hub]


def progress(running: list[Pump], what: str) -> None:
    before = [pump.acked for pump in running]
    wait_for(
        lambda: all(pump.acked > acked for pump, acked in zip(running, before, strict=True)),
        timeout_s=60,
        what=f"progress {what}",
    )


def test_each_hub_gets_a_part_of_the_messages(shared_place: tuple[HubPlace, Path]) -> None:
    place, broker_log = shared_place
    with pumps(place, 3) as running:
        for _ in range(5):
            progress(running, "with two hubs")

    def sent() -> tuple[int, int, int]:
        """(messages that came, those to the first hub, those to the second)."""
        lines = [line for line in broker_log.read_text().splitlines() if "/telemetry'" in line]
        came = sum(" Received PUBLISH from " in line for line in lines)
        both_hubs, second = (
            sum(f" Sending PUBLISH to {client}" in line for line in lines)
            for client in (f"hedgerow-hub-{place.workspace.id}-", f"hedgerow-hub-{place.workspace.id}-2-")
        )
        # The first hub's name is the beginning of the second's.
        return came, both_hubs - second, second

    # What a device sent twice may still be on its way.
    wait_for(lambda: (n := sent())[0] == n[1] + n[2], timeout_s=30, what="each message at one hub, none at both or at none")
    came, first, second = sent()
    assert min(first, second) > came / 10


@pytest.mark.parametrize("kills", [KILLS, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.timeout(7200)
def test_either_hub_may_be_killed_at_any_moment(shared_place: tuple[HubPlace, Path], kills: int) -> None:
    place, _ = shared_place
    chance = random.Random(kills)
    with pumps(place, 3) as running:
        for _ in range(kills):
            progress(running, "with two hubs")
            victim = chance.choice(both(place))
            victim.kill()
            nothing_acknowledged_is_missing(place, running)
            progress(running, "with one hub")
            (place.start_hub if victim is place.hub else place.start_second_hub)()
    for hub in both(place):
        assert "Traceback" not in hub.log_text()


def test_with_a_broker_of_mqtt_3_one_hub_listens_and_the_other_takes_over(tmp_path: Path, postgres_url: str) -> None:
    """The embedded broker has no MQTT 5."""
    with hub_place(tmp_path, database_url=postgres_url, share=True) as place:
        place.start_second_hub()
        for hub in both(place):
            wait_for(lambda hub=hub: "has no shared subscriptions" in hub.log_text(), timeout_s=30, what="the broker's answer")  # type: ignore[misc]  # bound for this round

        def listening() -> list[RealProcess]:
            return [hub for hub in both(place) if "Connected to the broker" in hub.log_text()]

        wait_for(lambda: listening(), timeout_s=30, what="one hub that listens")
        with pumps(place, 2) as running:
            progress(running, "with one hub of two")
            first = listening()[0]
            first.kill()
            nothing_acknowledged_is_missing(place, running)
            progress(running, "with the other hub")
            assert len(listening()) == 2
            (place.start_hub if first is place.hub else place.start_second_hub)()
            progress(running, "with both again")


def test_on_sqlite_hubs_do_not_share(tmp_path: Path) -> None:
    place = HubPlace(tmp_path / "workspace", broker_port=1, share=True)
    hub = place._hub("hub")
    hub.start()
    wait_for(lambda: not hub.is_running, timeout_s=30, what="the hub's refusal")
    place.end()
    assert "its database is SQLite" in hub.log_text()
