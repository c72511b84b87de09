"""Agent, hub and broker killed (kill -9) at random under load: nothing acknowledged is lost, nothing is stored twice."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from tests.edge_place import edge_place, wait_started
from tests.hub_parts import hub_place


@pytest.mark.parametrize("rounds", [30, pytest.param(1000, marks=pytest.mark.soak)])
@pytest.mark.timeout(7200)
def test_random_kills_of_agent_hub_and_broker(tmp_path: Path, rounds: int) -> None:
    chance, pause = random.Random(rounds), threading.Event()
    with hub_place(tmp_path / "hub") as hub, edge_place(hub, tmp_path / "device") as place:
        place.deploy()
        pids = {name: place.agent.pid_of(name) for name in ("a", "b")}
        for number in range(rounds):
            place.wait_for_more(f"before kill {number}")
            if number % 10 == 9:
                place.wait_for_arrivals(f"before kill {number}")
            pause.wait(chance.uniform(0.0, 0.3))
            match chance.choice(["agent", "hub", "broker"]):
                case "agent":
                    place.agent.kill()
                    place.agent.process.start()
                case "hub":
                    assert hub.hub is not None
                    hub.hub.kill()
                    hub.hub.start()  # it may be killed again before it is ready
                case _:
                    assert hub.broker is not None
                    hub.broker.kill()
                    hub.start_broker()
        wait_started(place)
        place.check()
        assert {name: place.agent.pid_of(name) for name in ("a", "b")} == pids, "a module was restarted"
        assert len(place.told("a")) > rounds
