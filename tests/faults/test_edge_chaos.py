"""``hedgerow agent chaos`` on a real agent: what it breaks, what it finds kept, and that it needs leave."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.chaos.command import duration_s
from edge_agent.errors import ChaosRefused
from tests.edge_place import EdgePlace, edge_place
from tests.hub_parts import HubPlace, hub_place
from tests.small_disk import small_disk
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubPlace]:
    with hub_place(tmp_path_factory.mktemp("hub")) as made:
        yield made


@pytest.fixture
def place(tmp_path: Path) -> Iterator[EdgePlace]:
    with hub_place(tmp_path / "hub") as hub, edge_place(hub, tmp_path / "device", "--chaos-allowed") as made:
        made.deploy(pause_s=0.02)
        made.wait_for_arrivals("at first")
        yield made


def chaos(place: EdgePlace, *words: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-P", "-m", "edge_agent", "chaos", *words, "--state-dir", str(place.agent.state)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def answer(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, Any], str]:
    out, problems = process.communicate(timeout=300)
    return process.returncode, json.loads(out) if out else {}, problems.decode()


def broken(trial: dict[str, Any]) -> list[str]:
    return [f"{check['name']}: {check['detail']}" for check in trial["checks"] if not check["ok"]]


@pytest.mark.timeout(600)
def test_offline_modules_work_on_and_everything_arrives(place: EdgePlace) -> None:
    code, trial, problems = answer(chaos(place, "offline", "3s", "--json"))
    assert (code, broken(trial), problems) == (0, [], "")
    assert trial["queued_most"] > trial["queued_after"]
    assert any(decision.action == "chaos" for decision in place.agent.decisions())
    place.check()


@pytest.mark.timeout(600)
def test_a_killed_module_comes_back_and_a_killed_agent_finds_its_modules(place: EdgePlace) -> None:
    before = place.agent.pid_of("b")
    code, trial, problems = answer(chaos(place, "kill-module", "a", "--json"))
    assert (code, broken(trial), problems) == (0, [], "")
    process = chaos(place, "kill-agent", "--json")
    wait_for(lambda: not place.agent.process.is_running, timeout_s=60, what="the agent's end")
    place.agent.process.start()  # as systemd would
    code, trial, problems = answer(process)
    assert (code, broken(trial), problems) == (0, [], "")
    assert place.agent.pid_of("b") == before
    code, _, problems = answer(chaos(place, "kill-module", "nobody", "--json"))
    assert (code, "running: a, b" in problems) == (2, True)
    place.check()


@pytest.mark.timeout(600)
def test_a_full_disk_is_survived_and_the_ballast_goes(tmp_path: Path, hub: HubPlace) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk, edge_place(hub, disk / "device", "--chaos-allowed", name="third") as place:
        place.deploy(pause_s=0.02)
        process = chaos(place, "disk-full", "4s", "--json")
        ballast = place.agent.state / "chaos.ballast"
        wait_for(ballast.exists, timeout_s=60, what="the ballast")
        code, trial, problems = answer(process)
        assert (code, broken(trial), problems) == (0, [], "")
        assert not ballast.exists()
        place.wait_for_more("after the disk was full")
        place.check()


@pytest.mark.timeout(600)
def test_an_ended_command_takes_its_ballast_along(tmp_path: Path, hub: HubPlace) -> None:
    with (
        small_disk(tmp_path / "disk", "24m") as disk,
        edge_place(hub, disk / "device", "--chaos-allowed", name="fourth") as place,
    ):
        process = chaos(place, "disk-full", "1h")
        assert process.stdout is not None
        assert b"ballast" in process.stdout.readline()
        process.terminate()
        process.communicate(timeout=60)
        assert not (place.agent.state / "chaos.ballast").exists()


def test_without_leave_there_is_no_socket_and_with_leave_it_is_the_owners(tmp_path: Path, hub: HubPlace) -> None:
    with edge_place(hub, tmp_path / "without", name="first") as place:
        code, _, problems = answer(chaos(place, "offline", "1s"))
        assert code != 0
        assert "--chaos-allowed" in problems
        assert not list(place.agent.state.glob("*.sock"))
    with edge_place(hub, tmp_path / "with", "--chaos-allowed", name="second") as place:
        socket = place.agent.state / "chaos.sock"
        wait_for(socket.exists, timeout_s=30, what="the socket")
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("90", 90), ("0.5s", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "-1s", "0", "soon", "25h", "1d", "1e9", "1 m"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ChaosRefused):
        duration_s(text)
