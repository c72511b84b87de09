"""The agent's version by desired state: uploaded, deployed, fetched, tried, kept or taken back, while modules run on."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.service import launch
from edge_agent.service.upgrade import launch_argv
from hedgerow.contracts.device import DeviceConfig, to_toml
from hedgerow.contracts.edge import AgentRelease, EdgeDeployment, ModuleSpec
from hedgerow.contracts.status import AgentReleaseStatus
from hedgerow.sdk.client import Client
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.agent_releases import first_release, tree_wheel, wheel
from tests.service_manager import Manager

SLEEPER = ModuleSpec(command=[sys.executable, "-c", "import time; time.sleep(1000)"])
# A release that starts, shows its help, and ends when it should run.
BROKEN = "import sys\nsys.exit(0 if '--help' in sys.argv else 7)\n"


class _Config:
    """device.toml of an enrolled device."""

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config

    def write_toml(self, path: Path) -> Path:
        path.touch(mode=0o600)
        path.write_text(to_toml(self.config))
        return path


class Device(AgentProcess):
    """An agent that its launcher starts; ``restarted`` begins it again as a service manager would."""

    def __init__(self, config: DeviceConfig, folder: Path, manager: Manager) -> None:
        env = {
            "NOTIFY_SOCKET": manager.address,
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "UV_CACHE_DIR": str(folder / "cache"),
            "UV_OFFLINE": "1",
        }
        super().__init__(_Config(config), folder, env=env)
        self.releases = folder / "releases"
        first_release(self.releases)
        self.process.argv = launch_argv(self.releases, ["run", "--config", str(self.config)])

    @property
    def release(self) -> AgentReleaseStatus | None:
        report = self.report()
        return report.agent_release if report else None

    def wait_release(self, state: str, wanted: str, *, restarting: bool = False) -> AgentReleaseStatus:
        def look() -> AgentReleaseStatus | None:
            if restarting and not self.process.is_running:
                self.process.start()
            found = self.release
            return found if found and (found.state, found.wanted) == (state, wanted) else None

        found = wait_for_or_show(self, look, 120, f"release {wanted} to be {state}")
        assert found is not None
        return found


@pytest.fixture
def device(client: Client, tmp_path: Path) -> Iterator[Device]:
    config = client.devices.enroll("pump").config
    with contextlib.closing(Manager(f"@hedgerow-{secrets.token_hex(8)}")) as manager:
        made = Device(config, tmp_path / "device", manager)
        with made:
            yield made


def deployment(agent: AgentRelease | None) -> EdgeDeployment:
    return EdgeDeployment(name="all", target="*", modules={"m": SLEEPER}, agent=agent)


def test_a_release_is_fetched_and_kept_and_one_that_is_not_well_is_refused(
    client: Client, device: Device, tmp_path: Path
) -> None:
    client.edge.deploy(deployment(None))
    pid = device.wait_pid("m")
    good = client.edge.upload_agent_release(tree_wheel(tmp_path))
    assert good.wheel is not None
    name = f"9.9.9-{good.wheel[7:19]}"
    (change,) = client.edge.plan_steps(deployment(good)).groups
    assert [step.action for step in change.steps] == ["upgrade"]
    client.edge.deploy(deployment(good))
    device.wait_release("current", name)
    assert launch.current(device.releases) == name
    assert launch.read(device.releases / launch.OUTCOME)["kept"] is True
    assert sorted(path.name for path in device.releases.iterdir() if path.is_dir() and not path.is_symlink()) == ["1", name]

    broken = client.edge.upload_agent_release(wheel(tmp_path, BROKEN, version="10.0.0"))
    assert broken.wheel is not None
    refused_name = f"10.0.0-{broken.wheel[7:19]}"
    client.edge.deploy(deployment(broken))
    refused = device.wait_release("refused", refused_name, restarting=True)
    assert f"{refused_name} was taken back, {name} runs again" in refused.reason
    assert launch.current(device.releases) == name
    # Not tried again, also not by an agent that starts anew.
    device.stop()
    device.start()
    device.wait_release("refused", refused_name)
    decisions = [d.action for d in device.decisions() if d.action.startswith("release-")]
    assert decisions.count("release-wanted") == 2
    assert device.pid_of("m") == pid, "no module has noticed any of it"
    shown = client.devices.get("pump").reported
    assert shown is not None
    assert shown.agent_release is not None

    client.edge.deploy(deployment(good))
    device.wait_release("current", name)
    assert device.pid_of("m") == pid


def test_a_wheel_that_cannot_even_start_is_refused_before_any_switch(client: Client, device: Device, tmp_path: Path) -> None:
    release = client.edge.upload_agent_release(wheel(tmp_path, "raise SystemExit('no such sensor')\n"))
    assert release.wheel is not None
    client.edge.deploy(deployment(release))
    refused = device.wait_release("refused", f"9.9.9-{release.wheel[7:19]}")
    assert "no such sensor" in refused.reason
    assert launch.current(device.releases) == "1"
    # What an index would have to give is waited for.
    client.edge.deploy(deployment(AgentRelease(version="77.0")))
    waiting = device.wait_release("waiting", "77.0")
    assert "hedgerow" in waiting.reason
    assert device.process.is_running


def test_an_agent_that_is_not_in_a_folder_of_releases_says_so(client: Client, tmp_path: Path) -> None:
    config = client.devices.enroll("bare").config
    release = client.edge.upload_agent_release(wheel(tmp_path, ""))
    client.edge.deploy(deployment(release))
    with AgentProcess(_Config(config), tmp_path / "device") as agent:

        def look() -> AgentReleaseStatus | None:
            report = agent.report()
            return report.agent_release if report else None

        found = wait_for_or_show(agent, look, 60, "a word about the release")
        assert found is not None
        assert found.state == "unmanaged"
        assert "by hand" in found.reason
        assert [d.action for d in agent.decisions()].count("release-unmanaged") == 1
        argv = [sys.executable, "-P", "-m", "edge_agent", "status", "--config", str(agent.config)]
        shown = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
        assert f"release that the hub asks for: {found.wanted}, unmanaged " in shown
        assert client.devices.get("bare").desired_version > 0


def test_what_a_device_may_fetch(client: Client, tmp_path: Path) -> None:
    """Only the wheel that its own desired state names, only with its own token."""
    import http.client
    from urllib.parse import urlsplit

    first, second = (client.devices.enroll(name).config for name in ("first", "second"))
    release = client.edge.upload_agent_release(wheel(tmp_path, ""))
    other = client.edge.upload_agent_release(wheel(tmp_path, "", version="9.9.8"))
    assert release.wheel is not None
    assert other.wheel is not None

    def fetched(config: DeviceConfig, name: str, digest: str) -> tuple[int, bytes]:
        url = urlsplit(first.registry_url)
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
        try:
            headers = {"authorization": f"Bearer {config.pull_token}"}
            connection.request("GET", f"/api/v1/devices/{name}/agent-wheel?digest={digest}", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    assert fetched(first, "first", release.wheel)[0] == 404, "nothing is deployed yet"
    client.edge.deploy(EdgeDeployment(name="one", target="deviceId = 'first'", modules={}, agent=release))
    wait_for_desired(client, "first", release)
    status, content = fetched(first, "first", release.wheel)
    assert (status, f"sha256:{hashlib.sha256(content).hexdigest()}") == (200, release.wheel)
    assert fetched(first, "first", other.wheel)[0] == 404
    assert fetched(second, "first", release.wheel)[0] == 403
    assert fetched(second, "second", release.wheel)[0] == 404


def wait_for_desired(client: Client, device: str, release: AgentRelease) -> None:
    from tests.waiting import wait_for

    def has_it() -> bool:
        desired = client.devices.twin(device).desired
        return desired is not None and desired.agent == release

    wait_for(has_it, timeout_s=60, what="the desired state")
