"""The agent as systemd sees it: told over a real datagram socket, fed only while its loops go round, installed and removed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.service.notify import Notifier
from edge_agent.service.unit import NAME, Service, unit_text
from edge_agent.service.watchdog import Loop, Watchdog
from tests.agent_builders import Workspace
from tests.agent_process import AgentProcess
from tests.service_manager import FED, Manager
from tests.waiting import wait_for


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # short: such an address has 108 bytes
        name = f"{folder}/notify" if request.param == "path" else f"@hedgerow-{secrets.token_hex(8)}"
        with contextlib.closing(Manager(name)) as made:
            yield made


def test_messages_arrive_as_sd_notify_has_them(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    notifier.ready()
    notifier.alive("2 of 2\nmodules")
    notifier.stopping()
    wait_for(lambda: len(manager.messages) == 3, what="the messages")
    assert manager.messages == ["READY=1", "WATCHDOG=1\nSTATUS=2 of 2 modules", "STOPPING=1"]


def test_nobody_there_is_nobodys_problem(tmp_path: Path) -> None:
    for address in (None, "", str(tmp_path / "gone"), "@hedgerow-nobody"):
        Notifier(address).ready()


class Turning:
    """A thread that goes round when woken, and can be hung up."""

    def __init__(self) -> None:
        self.rounds = 0
        self.free = threading.Event()
        self.free.set()
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def loop(self, name: str) -> Loop:
        return Loop(name, lambda: self.rounds, self._wake.set)

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait()
            self._wake.clear()
            self.free.wait()
            self.rounds += 1

    def close(self) -> None:
        self._ended = True
        self.free.set()
        self._wake.set()
        self._thread.join()


@pytest.mark.parametrize("manager", ["abstract"], indirect=True)
def test_one_hanging_loop_of_two_starves_the_watchdog_until_it_goes_on(manager: Manager) -> None:
    with contextlib.closing(Turning()) as good, contextlib.closing(Turning()) as bad:
        watchdog = Watchdog(Notifier(manager.address), [good.loop("good"), bad.loop("bad")], 0.25, lambda: "well")
        watchdog.start()
        wait_for(lambda: manager.feeds() >= 3, timeout_s=30, what="food")
        bad.free.clear()
        wait_for(lambda: "STATUS=hangs: bad" in manager.messages[-1:], timeout_s=30, what="the word about it")
        before, turned = manager.feeds(), good.rounds
        wait_for(lambda: good.rounds > turned + 10, timeout_s=30, what="ten more looks")
        # What had gone round before it hung may have been fed once more; what hangs never is.
        assert manager.feeds() <= before + 1
        bad.free.set()
        wait_for(lambda: manager.feeds() > before + 3, timeout_s=30, what="food again")
        watchdog.close()


@pytest.mark.parametrize("manager", ["abstract"], indirect=True)
def test_a_real_agent_is_fed_until_its_supervisor_hangs(manager: Manager, tmp_path: Path) -> None:
    told = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
    with AgentProcess(Workspace(uuid=os.urandom(16).hex()), tmp_path / "device", env=told) as agent:
        wait_for(lambda: "READY=1" in manager.messages, timeout_s=30, what="READY")
        wait_for(lambda: manager.feeds() >= 2, timeout_s=30, what="food")
        status = next(message for message in manager.messages if FED in message)
        assert "0 of 0 modules running, desired version 0, offline" in status
        # A look at this module's folder reads a pipe: the supervisor hangs as on a dead network disk.
        pipe = tmp_path / "stuck/launch.json"
        pipe.parent.mkdir()
        os.mkfifo(pipe)
        (agent.state / "modules").mkdir(exist_ok=True)
        stuck = agent.state / "modules/stuck"
        pipe.parent.rename(stuck)
        writer = wait_for(lambda: _writer(stuck / "launch.json"), timeout_s=30, what="the supervisor to read")
        assert writer is not None
        before = manager.feeds()
        wait_for(lambda: "STATUS=hangs: supervisor" in manager.messages, timeout_s=30, what="the word about it")
        # Of the looks in this time (a look is 0.4 s apart from the next) at most the first may still have fed.
        with pytest.raises(TimeoutError):
            _wait_for_feeds(manager, before + 2, seconds=4.0)
        shutil.rmtree(stuck)
        os.close(writer)
        wait_for(lambda: manager.feeds() >= before + 4, timeout_s=30, what="food again")
        agent.stop()
        wait_for(lambda: manager.messages[-1] == "STOPPING=1", timeout_s=30, what="STOPPING")


def _writer(pipe: Path) -> int | None:
    """The other end of a pipe that somebody reads; None while nobody does."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as problem:
        if problem.errno in (errno.ENXIO, errno.ENOENT):
            return None
        raise


def _wait_for_feeds(manager: Manager, feeds: int, *, seconds: float) -> None:
    try:
        wait_for(lambda: manager.feeds() >= feeds, timeout_s=seconds, what="food that must not come")
    except AssertionError:
        raise TimeoutError from None


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "edge_agent", *arguments]
    # An empty PATH: no systemctl, whatever this machine has.
    environment = {"HOME": str(home), "PATH": str(home)}
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_install_shows_what_it_would_do_and_does_nothing(tmp_path: Path) -> None:
    config = Workspace().write_toml(tmp_path / "device.toml")
    done = run("install", "--user", "--dry-run", "--config", str(config), "--", "--quota-bytes", "1000000", home=tmp_path)
    assert done.returncode == 0, done.stderr
    unit = tmp_path / ".config/systemd/user" / NAME
    assert f"write {unit}:" in done.stdout
    assert f"--quota-bytes 1000000 --config {config} --state-dir {tmp_path}/state" in done.stdout
    assert "run systemctl --user daemon-reload" in done.stdout
    assert f"run systemctl --user restart {NAME}" in done.stdout
    assert not unit.exists()
    removed = run("uninstall", "--user", "--dry-run", home=tmp_path)
    assert removed.stdout.splitlines()[0] == f"run systemctl --user disable --now {NAME}"


@pytest.mark.parametrize("program_works", [True, False])
def test_install_writes_the_unit_and_tells_systemctl(tmp_path: Path, program_works: bool) -> None:
    config = Workspace().write_toml(tmp_path / "device.toml")
    systemctl, asked = tmp_path / "systemctl", tmp_path / "asked"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n{"" if program_works else "echo no bus >&2; exit 1"}\n')
    systemctl.chmod(0o755)
    done = run("install", "--user", "--config", str(config), home=tmp_path)
    if not program_works:
        assert done.returncode == 2
        assert "no bus" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert f"ExecStart={sys.executable} -P -m edge_agent run" in (tmp_path / ".config/systemd/user" / NAME).read_text()
    assert asked.read_text().splitlines() == ["--user daemon-reload", f"--user enable {NAME}", f"--user restart {NAME}"]
    assert run("uninstall", "--user", home=tmp_path).returncode == 0
    assert not (tmp_path / ".config/systemd/user" / NAME).exists()
    again = run("uninstall", "--user", home=tmp_path)
    assert again.returncode == 2
    assert "it is not installed" in again.stderr


def test_install_refuses_options_that_the_agent_would_refuse(tmp_path: Path) -> None:
    config = Workspace().write_toml(tmp_path / "device.toml")
    done = run("install", "--user", "--dry-run", "--config", str(config), "--", "--no-such-option", home=tmp_path)
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


@pytest.mark.parametrize("user", [False, True])
def test_systemd_itself_can_read_the_unit(tmp_path: Path, user: bool) -> None:
    """Needs no running systemd. Where the machine has none at all (a container), the words were checked in the unit test."""
    analyze = shutil.which("systemd-analyze")
    unit = tmp_path / NAME
    unit.write_text(unit_text(Service([sys.executable, "-P"], Path("/etc/device.toml"), tmp_path / "a b", user=user)))
    if analyze is None:
        return
    verify = [analyze, *(["--user"] if user else []), "verify", str(unit)]
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False, env=environment)
    known_only_later = "Unknown key 'DelegateSubgroup' in section [Service], ignoring."
    problems = [line for line in done.stderr.splitlines() if NAME in line and known_only_later not in line]
    # What it says about the machine's own units, which also decides its exit code, is not our affair.
    assert problems == [], done.stderr
