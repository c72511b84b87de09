"""What a container prints, read through a real engine."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from edge_agent.methods.log_docker import docker_lines
from edge_agent.methods.log_lines import Line, Wanted
from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.outbox import Limits, Outbox
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.router import router_of
from edge_agent.telemetry.stdout_lines import StdoutLines
from tests.waiting import wait_for

# Prints an object when it starts, and one for each signal.
PRINTER = """
import itertools, signal
numbers = itertools.count()
def speak(*_):
    print('{"n": %d}' % next(numbers), flush=True)
signal.signal(signal.SIGUSR1, speak)
print("word", flush=True)
speak()
while True: signal.pause()
"""


@pytest.fixture
def container(docker_engine: docker.DockerClient, python_base_image: str) -> Iterator[Container]:
    made = docker_engine.containers.create(python_base_image, ["python3", "-c", PRINTER])
    try:
        made.start()
        yield made
    finally:
        made.remove(force=True, v=True)


def test_lines_of_a_container_are_read_once_in_order(container: Container, docker_host: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite", Limits(1_000_000, 0), lambda: None, lambda _problem: None)

    def lines_of(module: str, wanted: Wanted) -> Generator[Line, None, None]:
        return docker_lines(str(container.id), module, wanted, docker_host)

    try:
        reception = Reception(outbox, router_of(None, "porch"), Metrics())
        lines = StdoutLines(lines_of, reception, Metrics(), {}, max_message_bytes=1000)
        lines.follow({"m": "docker"}, 1.0)
        for number in range(3):

            def arrived(expected: int = number + 1) -> bool:
                lines.read("m", 1)
                return outbox.totals.queued_messages == expected

            wait_for(arrived, timeout_s=60, what=f"line {number}")
            container.kill("SIGUSR1")
        epoch, _ = outbox.streams()
        portion = outbox.read_after(epoch, "telemetry", outbox.settled("telemetry"), max_messages=9, max_bytes=9999)
        assert portion is not None
        found: list[Any] = [json.loads(message.body) for message in portion.messages]
        assert found[:3] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert all(message.time_ms > 1_000_000_000_000 for message in portion.messages), "the engine's own times"
    finally:
        outbox.close()
