"""The power goes at any moment: what was synced is there, the rest is there or not, page by page. The agent goes on with that.

One run of the real agent is recorded (``tests/power_trace.c``); each point in it gives a disk as it may be after the loss; a real
agent is started on it, with a hub that knows nothing any more, and has to bring everything that modules had been acknowledged.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.agent_builders import Workspace, command
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.edge_place import POSTER
from tests.fixtures.brokers import Broker
from tests.power_loss import Disk, Op, build_tracer, lay_out, read_trace
from tests.small_hub import SmallHub

MESSAGES = 400


class Recording:
    """A run of an agent with one module, from an empty folder to ``MESSAGES`` messages and a killed process."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.workspace = Workspace(broker_url=broker.url, uuid=os.urandom(16).hex())
        self.root, self._rest, log = folder / "device" / "state", folder / "rest", folder / "trace"
        self.root.mkdir(parents=True)
        tracing = {
            "LD_PRELOAD": str(build_tracer(folder)),
            "HW_TRACE_ROOT": str(self.root.resolve()),
            "HW_TRACE_LOG": str(log),
        }
        told = self.root / "modules" / "m" / "work" / "told"
        with SmallHub(self.workspace, broker.port) as hub, AgentProcess(self.workspace, folder / "device", env=tracing) as agent:
            hub.deploy({"m": command(sys.executable, "-c", POSTER, "0.002", str(self._rest), variables=tracing)})
            for share in (0.3, 0.6, 1.0):  # a start, kills, and starts from what is there
                enough = int(MESSAGES * share)
                wait_for_or_show(
                    agent,
                    lambda enough=enough: told.exists() and told.read_bytes().count(b"\n") > enough,  # type: ignore[misc]  # bound for this round
                    60,
                    "messages",
                )
                agent.kill()
                if share < 1.0:
                    agent.start()
            self._rest.touch()
        self.ops = read_trace(log)
        self.told = self._tellings()
        assert sum(op.kind == "S" for op in self.ops) > 50

    def _tellings(self) -> list[tuple[int, int]]:
        """(place in the trace, number) of everything that the module was acknowledged."""
        files: set[int] = set()
        found: list[tuple[int, int]] = []
        for place, op in enumerate(self.ops):
            if op.kind == "C":
                # The number of a file that was removed may be given to another.
                (files.add if op.first.endswith(b"/told") else files.discard)(op.file)
            elif op.kind == "W" and op.file in files:
                found += [(place, int(line)) for line in op.first.decode().split()]
        return found

    def disk_at(self, place: int, chance: random.Random, target: Path) -> None:
        disk = Disk()
        for op in self.ops[:place]:
            disk.follow(op)
        lay_out(disk.after_loss(chance), self.root.resolve(), target)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Recording:
    return Recording(tmp_path_factory.mktemp("recording"), broker)


@pytest.mark.parametrize("points", [20, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_missing_after_a_power_loss(
    recording: Recording, broker: Broker, tmp_path: Path, points: int
) -> None:
    chance = random.Random(points)
    places = [*sorted(chance.sample(range(1, len(recording.ops) + 1), points - 1)), len(recording.ops)]
    for place in places:
        told = {str(number) for at, number in recording.told if at < place}
        folder = tmp_path / f"at-{place}"
        recording.disk_at(place, chance, folder / "state")
        _check(recording.workspace, broker, folder, told, place)


def _check(workspace: Workspace, broker: Broker, folder: Path, told: set[str], place: int) -> None:
    """An agent on what is left brings ``told``, each once, and found no file damaged."""
    with SmallHub(workspace, broker.port) as hub, AgentProcess(workspace, folder) as agent:
        # This hub has nothing, so the agent sends everything that it has.
        wait_for_or_show(agent, lambda: told <= set(hub.bodies()), 60, f"the {len(told)} messages told before {place}")
        with hub.lock:
            found, gaps = Counter(hub.bodies()), {key: gap for key, gap in hub.model.gaps.items() if gap}
        assert [body for body, times in found.items() if times > 1] == [], f"doubled at {place}"
        assert gaps == {}, f"reported lost at {place}"
        damaged = [decision.reason for decision in agent.decisions() if decision.action == "set-aside"]
        assert damaged == [], f"damaged at {place}"
        agent.kill()
    assert [path.name for path in (folder / "state").glob("*.damaged")] == []


def synced_file(path: bytes, content: bytes) -> list[Op]:
    """File 1 in /d, written and synced, its folder too."""
    return [Op("C", 1, 0, path, b""), Op("W", 1, 0, content, b""), Op("S", 1, 0, b"", b""), Op("D", 0, 0, b"/d", b"")]


def test_the_model_keeps_what_was_synced_and_only_that() -> None:
    """A model that forgives everything would prove nothing."""
    ops = [
        *synced_file(b"/d/a", b"old"),
        Op("W", 1, 0, b"new", b""),
        Op("C", 2, 0, b"/d/b", b""),
    ]
    disk = Disk()
    for op in ops:
        disk.follow(op)
    seen = {tuple(sorted(disk.after_loss(random.Random(seed)).items())) for seed in range(200)}
    contents = {dict(state).get("/d/a") for state in seen}
    assert contents == {b"old", b"new"}
    assert {"/d/b" in dict(state) for state in seen} == {True, False}


def test_a_rename_before_its_sync_leaves_the_old_file_or_the_new() -> None:
    ops = [
        *synced_file(b"/d/f", b"one"),
        Op("C", 2, 0, b"/d/t", b""),
        Op("W", 2, 0, b"two", b""),
        Op("R", 0, 0, b"/d/t", b"/d/f"),
    ]
    disk = Disk()
    for op in ops:
        disk.follow(op)
    assert {disk.after_loss(random.Random(seed))["/d/f"] for seed in range(200)} == {b"one", b"two", b""}
    disk.follow(Op("S", 2, 0, b"", b""))
    disk.follow(Op("D", 0, 0, b"/d", b""))
    assert disk.after_loss(random.Random(1)) == {"/d/f": b"two"}
