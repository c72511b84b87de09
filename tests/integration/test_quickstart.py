"""The quickstart, as a new user runs it; and killed where it hurts, then run again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from hedgerow.sdk.connect import connect
from tests.fixtures.control_plane import processes_of
from tests.fixtures.parts import search_path
from tests.fixtures.real_process import RealProcess
from tests.small_disk import small_disk
from tests.waiting import wait_for

USUAL_PORTS = (8080, 1883, 8090)
HEDGEROW = Path(sys.executable).with_name("hedgerow")
# A build of the docker kind belongs to its own test; without an engine the quickstart says so and goes on.
NO_DOCKER = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
STEPS = [
    "control plane",
    "Training",
    "Registering",
    "Building",
    "Deploying it",
    "Scoring",
    "Enrolling",
    "to the device",
    "Killing",
]


# How this machine reaches the package index, which a container image's wheels come from.
NETWORK = {
    name: value for name, value in os.environ.items() if name.startswith(("SSL_CERT", "UV_")) or name.lower().endswith("_proxy")
}


@pytest.fixture(autouse=True)
def usual_ports_are_taken(request: pytest.FixtureRequest) -> Iterator[None]:
    """A quickstart looks whether 8080 is free and binds it a second later: two beside each other would both find it so.

    With the usual ports taken it picks others. Those that run alone see them free.
    """
    with ExitStack() as kept:
        for port in USUAL_PORTS if request.node.get_closest_marker("alone") is None else ():
            taken = kept.enter_context(socket.socket())
            # Each test process takes them, for as long as it needs them taken.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with suppress(OSError):  # somebody else has it: as good
                taken.bind(("127.0.0.1", port))
                taken.listen()
        yield


def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": search_path(), "HOME": str(tmp_path), "LANG": "C.UTF-8"} | NO_DOCKER | NETWORK


def quickstart(tmp_path: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    argv = [str(HEDGEROW), "quickstart", "--folder", str(tmp_path / "q"), *options]
    env = environment(tmp_path) | variables
    return subprocess.run(argv, capture_output=True, text=True, timeout=170, env=env, cwd=tmp_path)


@pytest.mark.alone
def test_the_whole_story_then_nothing_is_left(tmp_path: Path) -> None:
    answer = quickstart(tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert [text for text in STEPS if text not in answer.stdout] == []
    assert "✗" not in answer.stdout
    assert not (tmp_path / "q").exists()
    assert processes_of(tmp_path) == []


def test_with_a_docker_engine_it_builds_a_container_image_too(tmp_path: Path, docker_host: str, python_base_image: str) -> None:
    answer = quickstart(tmp_path, DOCKER_HOST=docker_host, HEDGEROW_DOCKER_BASE=python_base_image)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"on {python_base_image}" in answer.stdout, answer.stdout
    assert "docker image" in answer.stdout


def test_kept_it_shows_what_it_did_until_it_is_stopped(tmp_path: Path) -> None:
    try:
        answer = quickstart(tmp_path, "--keep", "--json")
        assert answer.returncode == 0, answer.stdout + answer.stderr
        did = json.loads(answer.stdout)["did"]
        with connect(tmp_path / "q" / "workspace", start=False) as client:
            assert did["model"].endswith(client.models.get("shuttle-anomaly:1").digest)
            device = client.devices.get("press-1")
            assert device.online
            assert device.reported is not None
            assert device.reported.modules["scorer"].state == "running"
            assert client.telemetry.list("press-1").items
            assert client.telemetry.gaps().items == []
        page = httpx.get(did["page"], follow_redirects=True)
        assert page.status_code == 200
        assert "shuttle-anomaly" in page.text
        assert "press-1" in page.text
    finally:
        stopped = quickstart(tmp_path, "--stop")
    assert stopped.returncode == 0, stopped.stderr
    assert processes_of(tmp_path) == []
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("step", [STEPS[1], STEPS[3], STEPS[5], STEPS[7]])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_and_then_again(tmp_path: Path, step: str, number: signal.Signals) -> None:
    before = STEPS[STEPS.index(step) - 1]
    argv = [str(HEDGEROW), "quickstart", "--folder", str(tmp_path / "q")]
    process = RealProcess(argv, log=tmp_path / "log", env=environment(tmp_path), cwd=tmp_path).start()
    process.wait_until(lambda: before in process.log_text(), timeout_s=90, what=f"the step before {step!r}")
    os.kill(process.pid, number)
    wait_for(lambda: not process.is_running, timeout_s=60, what="the end of the quickstart")
    if number == signal.SIGINT:
        assert processes_of(tmp_path) == [], "Ctrl-C leaves nothing running"
    answer = quickstart(tmp_path, "--stop")
    assert answer.returncode == 0, answer.stderr
    assert processes_of(tmp_path) == []


def test_killed_and_run_again_from_the_start(tmp_path: Path) -> None:
    argv = [str(HEDGEROW), "quickstart", "--folder", str(tmp_path / "q")]
    process = RealProcess(argv, log=tmp_path / "log", env=environment(tmp_path), cwd=tmp_path).start()
    process.wait_until(lambda: STEPS[6] in process.log_text(), timeout_s=120, what="the enrolled device")
    process.kill()
    answer = quickstart(tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert processes_of(tmp_path) == []


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "thesis.tex").write_text("precious")
    answer = quickstart(tmp_path)
    assert answer.returncode == 1
    assert "was not made by a quickstart" in answer.stderr
    assert (tmp_path / "q" / "thesis.tex").read_text() == "precious"


def test_without_a_home_folder(tmp_path: Path) -> None:
    argv = [str(HEDGEROW), "quickstart", "--folder", str(tmp_path / "q")]
    env = {name: value for name, value in environment(tmp_path).items() if name != "HOME"}
    answer = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=170)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is left, not even a lock"


def test_on_a_full_disk_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path, "300k"):
        answer = quickstart(tmp_path)
        assert answer.returncode == 1
        assert "No space left" in answer.stderr or "disk is full" in answer.stderr
        assert "Traceback" not in answer.stderr
        assert processes_of(tmp_path) == []
