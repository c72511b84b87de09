"""Docker modules by a real agent: pulled by digest from a real registry, supervised, adopted, telemetry from inside."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from hedgerow.contracts.edge import DesiredModule, ModuleSpec
from hedgerow.contracts.names import LABEL_OWNER
from hedgerow.contracts.service import ImagePin
from tests.agent_builders import Workspace, shell
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.fixtures.brokers import Broker
from tests.fixtures.oci_registry import OciRegistry
from tests.small_hub import SmallHub
from tests.waiting import wait_for

POST = """
import os, urllib.request
request = urllib.request.Request(os.environ["HEDGEROW_TELEMETRY_URL"], data=b'{"from": "inside"}', method="POST",
    headers={"authorization": "Bearer " + os.environ["HEDGEROW_TELEMETRY_TOKEN"]})
urllib.request.urlopen(request, timeout=20)
import time; time.sleep(1000)
"""


@pytest.fixture(scope="module")
def pinned(docker_engine: docker.DockerClient, docker_registry: OciRegistry, python_base_image: str) -> ImagePin:
    """A small image in the registry, and no longer in the engine under that name."""
    repository = f"{docker_registry.address}/agent-module"
    docker_engine.images.get(python_base_image).tag(repository, "1")
    lines = list(docker_engine.api.push(repository, tag="1", stream=True, decode=True))
    digest = next(line["aux"]["Digest"] for line in lines if "aux" in line)
    docker_engine.images.remove(f"{repository}:1")
    return ImagePin(name="agent-module", version=1, digest=digest, kind="docker")


@dataclass
class Site:
    hub: SmallHub
    agent: AgentProcess
    containers: Callable[[], list[Container]]

    def container(self) -> Container:
        found = wait_for(self.containers, timeout_s=30, what="the container")
        return found[0]


@pytest.fixture
def site(
    broker: Broker, docker_registry: OciRegistry, docker_engine: docker.DockerClient, docker_host: str, tmp_path: Path
) -> Iterator[Site]:
    workspace = Workspace(broker_url=broker.url, registry_url=f"http://{docker_registry.address}", uuid=os.urandom(16).hex())

    def containers() -> list[Container]:
        return list(
            docker_engine.containers.list(all=True, ignore_removed=True, filters={"label": f"{LABEL_OWNER}={workspace.uuid}"})
        )

    with (
        SmallHub(workspace, broker.port) as hub,
        AgentProcess(workspace, tmp_path / "device", env={"DOCKER_HOST": docker_host}) as agent,
    ):
        yield Site(hub, agent, containers)
    for container in containers():
        container.remove(force=True, v=True)
    for network in docker_engine.networks.list(filters={"label": f"{LABEL_OWNER}={workspace.uuid}"}):
        network.remove()


# As process 1 of a container, a plain `sleep` would ignore SIGTERM.
POLITE = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")


def module(image: ImagePin, *argv: str, **spec: Any) -> DesiredModule:
    return DesiredModule(spec=ModuleSpec(kind="docker", image="agent-module:1", command=list(argv), **spec), image=image)


def test_a_container_is_pulled_by_digest_runs_comes_back_and_is_adopted(site: Site, pinned: ImagePin) -> None:
    site.hub.deploy({"box": module(pinned, *POLITE), "beside": shell("exec sleep 1000")})
    status = site.agent.wait_state("box", "running", timeout_s=60)
    assert status.image_digest == pinned.digest
    assert [d.action for d in site.agent.decisions() if d.module == "box"] == ["pull", "start"]
    container = site.container()
    assert container.attrs["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")

    pid = status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    again = wait_for_or_show(
        site.agent,
        lambda: (s := site.agent.module("box")) and s.state == "running" and s.restart_count == 1 and s,
        20,
        "the restart",
    )
    assert again
    assert again.pid != pid
    assert [c.id for c in site.containers()] == [container.id], "the container was made anew"

    site.agent.kill()
    site.agent.start()
    wait_for_or_show(site.agent, lambda: site.agent.get("/metrics")[1].count('state="running"} 1\n') == 2, 20, "the adoption")
    container.reload()
    assert container.attrs["State"]["Pid"] == again.pid

    site.hub.deploy({"beside": shell("exec sleep 1000")})
    wait_for_or_show(site.agent, lambda: not site.containers(), 30, "the container to be removed")


def test_an_update_of_options_makes_a_new_container_and_another_order_of_keys_does_not(site: Site, pinned: ImagePin) -> None:
    site.hub.deploy({"box": module(pinned, *POLITE, create_options={"Env": ["A=1"], "Labels": {"x": "1"}})})
    site.agent.wait_state("box", "running", timeout_s=60)
    first = site.container().id
    version = site.hub.deploy({"box": module(pinned, *POLITE, create_options={"Labels": {"x": "1"}, "Env": ["A=1"]})})
    wait_for(
        lambda: (
            site.hub.report is not None and site.hub.report.desired.version == version and site.hub.report.desired.code == 200
        ),
        what="v2",
    )
    assert site.container().id == first
    site.hub.deploy({"box": module(pinned, *POLITE, create_options={"Env": ["A=2"]})})
    wait_for_or_show(site.agent, lambda: [c.id for c in site.containers() if c.id != first], 30, "the new container")
    site.agent.wait_state("box", "running", timeout_s=30)
    assert len(site.containers()) == 1


def test_telemetry_from_inside_a_container_reaches_the_hub(site: Site, pinned: ImagePin) -> None:
    site.hub.deploy({"box": module(pinned, "python3", "-c", POST)})
    wait_for_or_show(site.agent, site.hub.bodies, 60, "the telemetry")
    assert [json.loads(body) for body in site.hub.bodies()] == [{"from": "inside"}]


def test_a_docker_health_check_is_heard(site: Site, pinned: ImagePin) -> None:
    check = {"Test": ["CMD-SHELL", "test ! -e /sick"], "Interval": 200_000_000, "Retries": 2, "Timeout": 2_000_000_000}
    # After its restart the container's file system still has the file; only the first run makes it.
    script = "test -e /before && rm -f /sick; touch /before; exec sleep 1000"
    site.hub.deploy(
        {
            "box": module(
                pinned, "sh", "-c", script, create_options={"Healthcheck": check}, restart_policy="on-unhealthy", stop_grace_s=1.0
            )
        }
    )
    site.agent.wait_state("box", "running", timeout_s=60)
    assert site.container().exec_run(["touch", "/sick"]).exit_code == 0
    wait_for_or_show(
        site.agent, lambda: (s := site.agent.module("box")) and s.restart_count == 1 and s.state == "running", 30, "the restart"
    )
    assert any("health check" in d.reason for d in site.agent.decisions() if d.action == "stop")


def test_a_privileged_module_needs_this_devices_consent(site: Site, pinned: ImagePin) -> None:
    site.hub.deploy({"box": module(pinned, *POLITE, create_options={"HostConfig": {"Privileged": True}})})
    status = site.agent.wait_state("box", "backoff", timeout_s=60)
    assert "Privileged" in status.reason
    assert site.containers() == []


@pytest.mark.alone
def test_without_a_docker_engine_only_docker_modules_wait(broker: Broker, tmp_path: Path) -> None:
    workspace = Workspace(broker_url=broker.url, uuid=os.urandom(16).hex())
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock"}
    with SmallHub(workspace, broker.port) as hub, AgentProcess(workspace, tmp_path / "device", env=nowhere) as agent:
        hub.deploy({"box": DesiredModule(spec=ModuleSpec(kind="docker", image="x:1")), "m": shell("exec sleep 1000")})
        agent.wait_state("m", "running")
        status = wait_for_or_show(
            agent, lambda: (s := agent.module("box")) and "does not answer" in s.reason and s, 10, "the reason"
        )
        assert status
        assert status.state == "pending"
        pid = agent.wait_pid("m")
        os.kill(pid, signal.SIGKILL)
        agent.wait_pid("m", other_than=pid, timeout_s=1.0)
