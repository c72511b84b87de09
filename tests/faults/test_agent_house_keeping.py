"""A device whose disk is full of yesterday's images, and one that boots where no network answers: modules run all the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.state_store import StateStore
from hedgerow.contracts.edge import DesiredModule, ModuleSpec
from hedgerow.contracts.service import ImagePin
from tests.agent_builders import Workspace, desired, pin, shell
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.agent_registry import Registry, open_registry, tar
from tests.fixtures.brokers import Broker, MosquittoFactory
from tests.small_disk import small_disk
from tests.small_hub import SmallHub
from tests.waiting import wait_for

SLEEPER = shell("exec sleep 1000")
MB = 1_000_000


@pytest.fixture
def broker(mosquitto: MosquittoFactory) -> Iterator[Broker]:
    with mosquitto() as made:
        yield made


@pytest.fixture
def registry() -> Iterator[Registry]:
    with open_registry() as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "22m") as made:
        yield made


def of_image(image: ImagePin) -> DesiredModule:
    return DesiredModule(spec=ModuleSpec(image="shuttle:1"), image=image)


def is_here(agent: AgentProcess, image: ImagePin) -> bool:
    return (agent.state / "images" / image.digest.replace(":", "-")).is_dir()


def test_an_image_that_does_not_fit_comes_after_unused_ones_went(broker: Broker, registry: Registry, disk: Path) -> None:
    old, new = (registry.image(tar(("model.onnx", os.urandom(8 * MB)))) for _ in range(2))
    workspace = Workspace(broker_url=broker.url, registry_url=registry.url, uuid=os.urandom(16).hex())
    options = ("--disk-free-min-bytes", str(10 * MB))
    with SmallHub(workspace, broker.port) as hub, AgentProcess(workspace, disk / "d", *options) as agent:
        hub.deploy({"m": SLEEPER, "x": of_image(old)})
        wait_for_or_show(agent, lambda: is_here(agent, old), 60, "the first image")
        pid = agent.wait_pid("m")
        version = hub.deploy({"m": SLEEPER})
        wait_for(lambda: hub.report is not None and hub.report.desired.version == version, timeout_s=30, what="the removal")
        assert is_here(agent, old), "there was room for it"
        # Its blob, unpacked beside it, fits only when the other image has gone.
        hub.deploy({"m": SLEEPER, "y": of_image(new)})
        wait_for_or_show(agent, lambda: is_here(agent, new), 90, "the second image")
        assert not is_here(agent, old)
        told = wait_for_or_show(
            agent, lambda: " ".join(d.reason for d in agent.decisions() if d.action == "garbage"), 30, "the decision"
        )
        assert "the disk is nearly full" in told
        assert old.digest[:19] in told
        assert agent.metric("hedgerow_agent_garbage_freed_bytes_total") >= 8 * MB
        assert agent.pid_of("m") == pid


def test_a_device_boots_where_no_network_answers(tmp_path: Path) -> None:
    """Addresses that swallow everything, names that nobody knows: what is on the disk starts, and nothing waits for them."""
    workspace = Workspace(broker_url="mqtt://192.0.2.1:1883", registry_url="http://registry.invalid:5000")
    image = pin("7")
    state = StateStore(tmp_path / "device/state")
    state.folder.mkdir(parents=True)
    modules = {"m": SLEEPER, "scorer": of_image(image), "absent": of_image(pin("8"))}
    state.desired.write_bytes(workspace.signed(desired(modules)))
    (state.images / image.digest.replace(":", "-")).mkdir(parents=True)
    with AgentProcess(workspace, tmp_path / "device") as agent:
        agent.wait_pid("m", timeout_s=30)
        started = wait_for_or_show(
            agent, lambda: {d.module for d in agent.decisions() if d.action == "start"} == {"m", "scorer"}, 30, "both starts"
        )
        assert started
        report = wait_for_or_show(agent, agent.report, 30, "a report")
        assert report
        assert report.limits_by in ("rlimit", "cgroup")
        assert report.modules["absent"].state == "pending"
        status = subprocess.run(
            [*agent.process.argv[:4], "status", "--config", str(agent.config)], capture_output=True, text=True, check=False
        )
        assert "limits of process modules: " in status.stdout
        assert "control groups" in status.stdout or "rlimits" in status.stdout
