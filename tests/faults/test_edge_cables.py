"""Bad lines between agent and hub: cut cables, lost and late packets, connections that only one end believes in."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.link.link_mqtt import RETRY
from tests.agent_process import AgentProcess
from tests.cable import Cable, Namespace, cable
from tests.edge_place import EdgePlace, edge_place
from tests.fixtures.parts import program
from tests.fixtures.real_process import RealProcess
from tests.hub_parts import hub_place

PORT = 1883
# By then messages come again after a fault is over.
BACK_S = 2 * RETRY.cap_s


def agent_in(namespace: Namespace) -> type[AgentProcess]:
    """Its local port is asked from inside the namespace."""

    class AgentInNamespace(AgentProcess):
        def _request(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, str]:
            with namespace.entered():
                return super()._request(method, path, body, headers)

    return AgentInNamespace


@contextmanager
def far_edge(folder: Path) -> Iterator[tuple[EdgePlace, Cable]]:
    """Mosquitto and hub at one end of a cable, the agent and its modules at the other."""
    with cable() as line:
        conf = folder / "mosquitto.conf"
        conf.write_text(f"user root\nlistener {PORT} 0.0.0.0\nallow_anonymous true\n")
        broker = RealProcess([*line.site.inside, program("mosquitto"), "-c", str(conf)], log=folder / "mosquitto.log").start()
        try:
            with (
                hub_place(folder / "hub", broker_port=PORT, inside=line.site.inside) as hub,
                edge_place(
                    hub,
                    folder / "device",
                    broker_url=f"mqtt://{line.site.address}:{PORT}",
                    agent_type=agent_in(line.device),
                    inside=line.device.inside,
                ) as place,
            ):
                place.deploy(pause_s=0.005)
                place.wait_for_arrivals("over a good line")
                yield place, line
        finally:
            broker.stop()


@pytest.mark.parametrize("cuts", [10, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.timeout(3600)
def test_a_cable_that_is_cut_again_and_again(tmp_path: Path, cuts: int) -> None:
    chance, pause = random.Random(cuts), threading.Event()
    with far_edge(tmp_path) as (place, line):
        for number in range(cuts):
            line.is_cut = True
            pause.wait(chance.uniform(0.05, 1.5))
            line.is_cut = False
            place.wait_for_arrivals(f"after cut {number}", timeout_s=BACK_S)
        place.check()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_cable_that_is_cut_until_the_agent_tries_seldom(tmp_path: Path) -> None:
    """Its pauses are the longest by then; the next try finds the cable."""
    pause = threading.Event()
    with far_edge(tmp_path) as (place, line):
        for number in range(3):
            line.is_cut = True
            pause.wait(120.0)
            line.is_cut = False
            place.wait_for_arrivals(f"after long cut {number}", timeout_s=BACK_S)
        place.check()


@pytest.mark.timeout(600)
def test_a_line_that_loses_a_fifth_and_takes_600_ms(tmp_path: Path) -> None:
    with far_edge(tmp_path) as (place, line):
        line.loss, line.delay_s = 0.2, 0.3
        for number in range(3):
            place.wait_for_arrivals(f"over the bad line, {number}", timeout_s=150)
        place.wait_for_more("over the bad line")
        line.loss, line.delay_s = 0.0, 0.0
        place.check()


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.timeout(3600)
def test_a_connection_that_only_one_end_believes_in(tmp_path: Path, times: int) -> None:
    """Nobody says a word about its end: the agent has to notice by itself, and be back within twice its longest pause."""
    with far_edge(tmp_path) as (place, line):
        for number in range(times):
            line.forget_connections()
            place.wait_for_arrivals(f"after loss {number} of the connection", timeout_s=BACK_S)
            place.wait_for_more("meanwhile")
        place.check()
