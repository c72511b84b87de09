"""Another release of the agent on a running device: kept when it is well, taken back when it is not; modules notice nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.service import launch
from edge_agent.service.upgrade import LAUNCHER, begin_trial, launch_argv
from tests.agent_builders import Workspace, shell
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.agent_releases import make_release, wheel
from tests.fixtures.brokers import Broker, MosquittoFactory
from tests.service_manager import Manager
from tests.small_hub import SmallHub
from tests.waiting import wait_for

SLEEPER = shell("exec sleep 1000")


@pytest.fixture
def broker(mosquitto: MosquittoFactory) -> Iterator[Broker]:
    with mosquitto() as made:
        yield made


class Device(AgentProcess):
    """An agent that its launcher starts, from a folder of releases."""

    def __init__(self, workspace: Workspace, folder: Path, manager: Manager) -> None:
        super().__init__(workspace, folder, env={"NOTIFY_SOCKET": manager.address})
        self.manager = manager
        self.releases = folder / "releases"
        self.releases.mkdir()
        make_release(self.releases, "1")
        (self.releases / LAUNCHER).write_bytes(Path(launch.__file__).read_bytes())
        launch.switch(self.releases, "1")
        self.process.argv = launch_argv(self.releases, ["run", "--config", str(self.config)])

    def outcome(self) -> dict[str, object]:
        return launch.read(self.releases / launch.OUTCOME)


@pytest.fixture
def site_of(broker: Broker, tmp_path: Path) -> Iterator[tuple[SmallHub, Device]]:
    workspace = Workspace(broker_url=broker.url, uuid=os.urandom(16).hex())
    with (
        contextlib.closing(Manager(f"@hedgerow-{secrets.token_hex(8)}")) as manager,
        SmallHub(workspace, broker.port) as hub,
    ):
        device = Device(workspace, tmp_path / "device", manager)
        with device:
            yield hub, device


def test_a_release_that_is_well_is_kept_and_no_module_restarts(site_of: tuple[SmallHub, Device]) -> None:
    hub, device = site_of
    hub.deploy({"m": SLEEPER})
    pid, agent_pid = device.wait_pid("m"), device.process.pid
    wait_for(lambda: hub.model.session, timeout_s=30, what="a session")
    make_release(device.releases, "2")
    begin_trial(device.releases, "2", had_session=True)
    assert _status(device).startswith("release: 2, on trial (start 0, before it: 1)")
    os.kill(agent_pid, signal.SIGHUP)
    wait_for_or_show(device, lambda: device.outcome().get("kept"), 90, "the commit")
    assert _status(device) == "release: 2"
    assert launch.current(device.releases) == "2"
    assert not (device.releases / launch.TRIAL).exists()
    wait_for_or_show(device, lambda: any(d.action == "release-kept" for d in device.decisions()), 30, "the decision")
    assert device.process.is_running, "it is the same process"
    # Whoever hears STOPPING ends the process, whatever it becomes.
    told = [message for message in device.manager.messages if not message.startswith("STATUS")]
    assert told == ["READY=1", "READY=1"]
    assert Path(f"/proc/{agent_pid}/cmdline").read_bytes().count(b"--releases") == 1
    assert device.pid_of("m") == pid


def _status(device: Device) -> str:
    argv = [sys.executable, "-P", "-m", "edge_agent", "status", "--config", str(device.config)]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
    return next(line for line in shown.splitlines() if line.startswith("release: "))


def test_a_release_that_crashes_is_taken_back_and_no_module_restarts(site_of: tuple[SmallHub, Device]) -> None:
    hub, device = site_of
    hub.deploy({"m": SLEEPER})
    pid = device.wait_pid("m")
    make_release(device.releases, "2", "raise SystemExit(7)\n")
    begin_trial(device.releases, "2", had_session=True)
    device.process.send(signal.SIGHUP)
    wait_for(lambda: not device.process.is_running, timeout_s=60, what="the crash of the new release")
    # As systemd would: once more, and once more.
    for _ in range(launch.STARTS_MAX - 1):
        ended = subprocess.run(device.process.argv, capture_output=True, timeout=60, check=False)
        assert ended.returncode == 7
    device.start()
    assert launch.current(device.releases) == "1"
    wait_for_or_show(device, lambda: any(d.action == "release-back" for d in device.decisions()), 30, "the decision")
    (words,) = (d.reason for d in device.decisions() if d.action == "release-back")
    assert "release 2 was taken back, 1 runs again: it was started 3 times" in words
    assert device.pid_of("m") == pid


def test_a_release_without_a_python_is_taken_back_at_once(site_of: tuple[SmallHub, Device]) -> None:
    hub, device = site_of
    hub.deploy({"m": SLEEPER})
    pid = device.wait_pid("m")
    (device.releases / "2").mkdir()
    begin_trial(device.releases, "2", had_session=True)
    device.process.send(signal.SIGHUP)
    wait_for_or_show(device, lambda: any(d.action == "release-back" for d in device.decisions()), 60, "the decision")
    assert launch.current(device.releases) == "1"
    assert device.process.is_running
    assert device.pid_of("m") == pid


def upgrade(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    config = Workspace().write_toml(folder / "device.toml")
    argv = [sys.executable, "-P", "-m", "edge_agent", "upgrade", "--config", str(config), "--find-links", str(folder), *options]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"HOME": str(folder), "PATH": path, "UV_CACHE_DIR": str(folder / "cache"), "UV_OFFLINE": "1"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_a_wheel_becomes_a_release(tmp_path: Path) -> None:
    built = wheel(tmp_path, "print('release 9.9.9')\n")
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    shown = upgrade(tmp_path, "--wheel", str(built), "--dry-run")
    assert "build release 9.9.9" in shown.stdout
    assert not (tmp_path / "releases").exists()
    releases = tmp_path / "releases"
    # What an upgrade that was killed in the middle has left; also a folder that is no environment at all.
    (releases / f"9.9.9-{digest[:12]}/bin").mkdir(parents=True)
    done = upgrade(tmp_path, "--wheel", str(built), "--sha256", digest)
    assert done.returncode == 0, done.stderr
    assert launch.current(releases) == f"9.9.9-{digest[:12]}"
    started = subprocess.run(launch_argv(releases, ["run"]), capture_output=True, text=True, timeout=60, check=False)
    assert started.stdout == "release 9.9.9\n"
    argv = [sys.executable, "-P", "-m", "edge_agent", "install", "--dry-run", "--config", str(tmp_path / "device.toml")]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert f"-I {releases}/launch.py {releases} run --config {tmp_path}/device.toml" in shown.stdout
    assert f"ReadWritePaths=-{releases}\n" in shown.stdout
    again = upgrade(tmp_path, "--wheel", str(built))
    assert again.returncode == 2
    assert "it is the current one" in again.stderr


@pytest.mark.parametrize("problem", ["digest", "broken"])
def test_a_wheel_that_is_not_right_changes_nothing(tmp_path: Path, problem: str) -> None:
    built = wheel(tmp_path, "raise SystemExit('no such sensor')\n" if problem == "broken" else "")
    done = upgrade(tmp_path, "--wheel", str(built), *(["--sha256", "0" * 64] if problem == "digest" else []))
    assert done.returncode == 2
    assert ("no such sensor" if problem == "broken" else "its sha256 is") in done.stderr
    assert launch.current(tmp_path / "releases") == ""
