"""Logs of a container, read from a real Docker engine with the filters and positions that methods use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import docker
import pytest

from edge_agent.methods.errors import LogsUnreadable
from edge_agent.methods.log_docker import docker_lines
from edge_agent.methods.log_lines import Wanted, chosen
from tests.waiting import wait_for

TALK = """
import sys
for n in range(300):
    print(f"<{3 if n % 100 == 0 else 6}> line {n}", flush=True)
print("ü", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def talker(docker_engine: docker.DockerClient, python_base_image: str) -> Iterator[str]:
    """The name of a container that has said 301 lines."""
    name = f"talker-{uuid.uuid4().hex[:12]}"
    container = docker_engine.containers.run(python_base_image, ["python3", "-c", TALK], name=name, detach=True)
    try:
        wait_for(lambda: container.logs().count(b"\n") >= 301, what="the container's words", timeout_s=60)
        yield name
    finally:
        container.remove(force=True)


def texts(talker: str, docker_host: str, **wanted: object) -> list[str]:
    asked = Wanted(**wanted)  # type: ignore[arg-type]  # the tests' own values
    return [line.text for line in chosen(docker_lines(talker, "m", asked, docker_host), asked)]


def test_every_line_of_both_streams(talker: str, docker_host: str) -> None:
    found = texts(talker, docker_host)
    assert len(found) == 301
    assert "ü" in found
    assert [line for line in found if line != "ü"][-1] == "<6> line 299"


def test_tail_levels_words_and_times(talker: str, docker_host: str) -> None:
    assert texts(talker, docker_host, levels=frozenset({3})) == ["<3> line 0", "<3> line 100", "<3> line 200"]
    assert texts(talker, docker_host, regex="line 29[0-9]$") == [f"<6> line {number}" for number in range(290, 300)]
    assert len(texts(talker, docker_host, tail=5)) == 5
    now_s = datetime.now(UTC).timestamp()
    assert texts(talker, docker_host, since_s=now_s + 1000) == []
    assert texts(talker, docker_host, until_s=now_s - 100_000) == []


def test_reading_goes_on_behind_a_position(talker: str, docker_host: str) -> None:
    everything = list(docker_lines(talker, "m", Wanted(), docker_host))
    # The two streams have readers of their own in Docker: between them times may be out of order.
    said = [line for line in everything if line.text != "ü"]
    for place in (0, 150, 299):
        rest = texts(talker, docker_host, after=said[place].position)
        assert [text for text in rest if text != "ü"] == [line.text for line in said[place + 1 :]]


def test_a_container_or_an_engine_that_is_not_there(docker_host: str) -> None:
    with pytest.raises(LogsUnreadable):
        texts("none-of-this-name", docker_host)
    with pytest.raises(LogsUnreadable):
        texts("talker", "tcp://127.0.0.1:9")
