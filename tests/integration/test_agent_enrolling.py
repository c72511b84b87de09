"""A device enrols by itself: ``hedgerow agent enroll``, and an agent that starts without a device.toml."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.device_config import read_device_config
from tests.enrollment_gate import gate_before
from tests.fixtures.parts import search_path
from tests.fixtures.real_process import RealProcess
from tests.registry_server import Api, RunningServer
from tests.waiting import wait_for
from tests.webhook_receivers import make_ca

Done = subprocess.CompletedProcess[str]


def agent(*arguments: str | Path, **env: str) -> Done:
    argv = [sys.executable, "-P", "-m", "edge_agent", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env={"PATH": search_path(), **env})


def enroll(url: str, secret: str, config: Path, *options: str) -> Done:
    """With the key in a file beside ``config``."""
    config.parent.mkdir(exist_ok=True)
    key = config.with_name("key")
    key.write_text(f"{secret}\n")
    return agent("enroll", "--url", url, "--key-file", key, "-o", config, *options)


@pytest.fixture
def secret(api: Api) -> str:
    """A key for any number of devices."""
    return new_key(api, uses_max=None)


def new_key(api: Api, **wanted: object) -> str:
    answered = api.post("/api/v1/enrollment-keys", json={"name": "line", "tags": {"site": "north"}} | wanted)
    assert answered.status_code == 201, answered.text
    return str(answered.json()["secret"])


def test_a_device_enrols_and_is_told_what_to_do_next(server: RunningServer, secret: str, tmp_path: Path) -> None:
    config = tmp_path / "press" / "device.toml"
    done = enroll(server.url, secret, config)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"hedgerow agent run --config {config}" in done.stdout
    written = read_device_config(config)
    assert (written.registry_url, written.tags) == (server.url, {"site": "north"})
    assert {path.name for path in config.parent.iterdir()} == {"device.toml", "device.toml.installation", "key"}
    for path in (config, config.with_name("device.toml.installation")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for told in (written.device_key, written.pull_token, secret):
        assert told not in done.stdout
    # A second time changes nothing of what is there.
    before = config.read_bytes()
    again = enroll(server.url, secret, config)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert config.read_bytes() == before


def test_the_same_installation_is_the_same_device_again(server: RunningServer, secret: str, tmp_path: Path) -> None:
    config = tmp_path / "press" / "device.toml"
    assert enroll(server.url, secret, config).returncode == 0
    first = read_device_config(config)
    config.unlink()
    assert enroll(server.url, secret, config).returncode == 0
    again = read_device_config(config)
    assert (again.device_uuid, again.name, again.device_key) == (first.device_uuid, first.name, first.device_key)
    assert again.pull_token != first.pull_token


def test_the_key_may_come_by_the_environment(server: RunningServer, secret: str, tmp_path: Path) -> None:
    config = tmp_path / "device.toml"
    done = agent("enroll", "--url", server.url, "-o", config, "--name", "by-variable", HEDGEROW_ENROLLMENT_KEY=secret)
    assert done.returncode == 0, done.stderr
    assert read_device_config(config).name == "by-variable"


@pytest.mark.parametrize(
    ("url", "key", "options", "words"),
    [
        ("SERVER", "hre_000000000000_none", (), "not one of this workspace's"),
        ("SERVER", "nonsense", (), "not of the form hre_ID_SECRET"),
        ("SERVER", "GOOD", ("--name", "Bad Name"), "name"),
        ("SERVER", "GOOD", ("--ca", "/nonexistent/ca.pem"), "there is no file /nonexistent/ca.pem"),
        ("http://plant.example", "GOOD", (), "--insecure-http"),
        ("http://127.0.0.1:1", "GOOD", (), "refused"),
        ("ftp://plant.example", "GOOD", (), "is not an address like https://plant.example"),
        ("https://user:pass@plant.example", "GOOD", (), "is not an address"),
    ],
)
def test_what_cannot_be_is_told_in_words(
    server: RunningServer, secret: str, tmp_path: Path, url: str, key: str, options: tuple[str, ...], words: str
) -> None:
    config = tmp_path / "device.toml"
    text = secret if key == "GOOD" else key
    done = enroll(url.replace("SERVER", server.url), text, config, *options)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert text not in done.stderr
    assert not config.exists()
    assert not config.with_name("device.toml.lock").exists()


def test_only_whom_an_authority_vouches_for_gets_the_key(server: RunningServer, secret: str, tmp_path: Path) -> None:
    authority, tls = make_ca(tmp_path, "127.0.0.1")
    config = tmp_path / "press" / "device.toml"
    with gate_before(server.url, tls=tls) as gate:
        refused = enroll(gate.url, secret, config)
        assert (refused.returncode, "CERTIFICATE_VERIFY_FAILED" in refused.stderr) == (1, True)
        assert gate.asked == 0
        done = enroll(gate.url, secret, config, "--ca", str(authority))
        assert done.returncode == 0, done.stderr
    assert read_device_config(config).tags == {"site": "north"}


def test_no_key_and_no_such_file_are_told(server: RunningServer, tmp_path: Path) -> None:
    config = tmp_path / "device.toml"
    assert "there is no key" in agent("enroll", "--url", server.url, "-o", config).stderr
    nowhere = tmp_path / "none"
    assert f"{nowhere} cannot be read" in agent("enroll", "--url", server.url, "-o", config, "--key-file", nowhere).stderr


def test_with_wait_it_asks_until_the_workspace_is_there(server: RunningServer, secret: str, tmp_path: Path) -> None:
    config, key = tmp_path / "device.toml", tmp_path / "key"
    key.write_text(secret)
    with gate_before(server.url, "away") as gate:
        refused = enroll(gate.url, secret, config)
        assert (refused.returncode, "503" in refused.stderr) == (1, True)
        argv = [sys.executable, "-P", "-m", "edge_agent", "enroll", "--url", gate.url, "--key-file", str(key), "--wait"]
        process = RealProcess([*argv, "-o", str(config)], log=tmp_path / "log").start()
        try:
            wait_for(lambda: gate.asked >= 3, timeout_s=60, what="a second question")
            assert not config.exists()
            gate.mode = "pass"
            wait_for(config.exists, timeout_s=60, what="device.toml")
        finally:
            process.stop()
    assert read_device_config(config).tags == {"site": "north"}


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[list[RealProcess]]:
    """Agents that a test started; they end with it."""
    started: list[RealProcess] = []
    yield started
    for process in started:
        process.stop(grace_s=20)


def zero_touch(url: str, folder: Path) -> RealProcess:
    """An agent as an image starts it: no device.toml, an address and a file with a key."""
    argv = [sys.executable, "-P", "-m", "edge_agent", "run", "--config", str(folder / "device.toml")]
    argv += ["--enroll-url", url, "--enroll-key-file", str(folder / "key")]
    return RealProcess(argv, log=folder / "agent.log", env={"HOME": str(folder)}).start()


def test_an_agent_without_a_device_toml_gets_one_and_runs(
    server: RunningServer, secret: str, tmp_path: Path, starting: list[RealProcess]
) -> None:
    (tmp_path / "key").write_text(secret)
    config, report = tmp_path / "device.toml", tmp_path / "state" / "report.json"
    with gate_before(server.url, "away") as gate:
        starting.append(zero_touch(gate.url, tmp_path))
        starting[0].wait_until(lambda: gate.asked >= 2, timeout_s=60, what="a second question")
        assert not config.exists()
        gate.mode = "pass"
        starting[0].wait_until(report.exists, timeout_s=60, what="a report of the agent that enrolled")
    uuid = read_device_config(config).device_uuid
    starting[0].stop(grace_s=20)
    # From then on it needs neither key nor network for it.
    (tmp_path / "key").unlink()
    report.unlink()
    starting.append(zero_touch(gate.url, tmp_path))
    starting[1].wait_until(report.exists, timeout_s=60, what="a report of the agent that is enrolled")
    assert read_device_config(config).device_uuid == uuid


def test_an_agent_that_is_refused_waits_for_a_better_key(
    server: RunningServer, secret: str, tmp_path: Path, starting: list[RealProcess]
) -> None:
    (tmp_path / "key").write_text("hre_000000000000_none")
    starting.append(zero_touch(server.url, tmp_path))
    log = tmp_path / "agent.log"
    process = starting[0]
    process.wait_until(lambda: "not one of this workspace's" in log.read_text(), timeout_s=60, what="the refusal in the log")
    (tmp_path / "key").write_text(secret)
    process.wait_until((tmp_path / "device.toml").exists, timeout_s=90, what="device.toml after the key was replaced")


def test_a_service_may_enrol_its_device(tmp_path: Path) -> None:
    config = tmp_path / "device.toml"
    options = ("--", "--enroll-url", "https://plant.example", "--enroll-key-file", "/etc/hedgerow/key")
    done = agent("install", "--dry-run", "--config", config, *options)
    assert done.returncode == 0, done.stderr
    assert "--enroll-url https://plant.example" in done.stdout
    # systemd keeps /etc closed; the folder where device.toml is to be must be open.
    assert f"ReadWritePaths=-{tmp_path}\n" in done.stdout
    assert "Enrol the device" in agent("install", "--dry-run", "--config", config).stderr


def test_an_address_alone_is_not_enough(tmp_path: Path) -> None:
    done = agent("run", "--config", tmp_path / "device.toml", "--enroll-url", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "--enroll-key-file" in done.stderr
