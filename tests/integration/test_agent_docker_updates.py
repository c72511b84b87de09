"""Updates and exec probes of containers, on a real Docker engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from edge_agent.engines.exec_docker import DockerCommands
from hedgerow.contracts.edge import DesiredModule, ModuleSpec, Probe, UpdatePolicy
from hedgerow.contracts.names import LABEL_MODULE, LABEL_OWNER
from tests.agent_builders import Workspace, wanted
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.fixtures.brokers import Broker
from tests.small_hub import SmallHub
from tests.waiting import wait_for

# As process 1 of a container, a plain `sleep` would ignore SIGTERM.
POLITE = "trap 'exit 0' TERM; sleep 1000 & wait"


@pytest.fixture
def workspace(broker: Broker, docker_engine: docker.DockerClient) -> Iterator[Workspace]:
    made = Workspace(broker_url=broker.url, uuid=os.urandom(16).hex())
    yield made
    for container in containers(docker_engine, made):
        container.remove(force=True, v=True)
    for network in docker_engine.networks.list(filters={"label": f"{LABEL_OWNER}={made.uuid}"}):
        network.remove()


def containers(engine: docker.DockerClient, workspace: Workspace) -> list[Container]:
    return list(engine.containers.list(all=True, ignore_removed=True, filters={"label": f"{LABEL_OWNER}={workspace.uuid}"}))


def _running_commands(engine: docker.DockerClient, workspace: Workspace) -> list[str]:
    """The last words of the commands of all containers that run."""
    found = [container.attrs for container in containers(engine, workspace)]
    return [attrs["Config"]["Cmd"][-1] for attrs in found if attrs["State"]["Running"]]


def test_commands_run_in_the_container_of_their_module(
    docker_engine: docker.DockerClient, docker_host: str, python_base_image: str, workspace: Workspace
) -> None:
    module = wanted("m", kind="docker")
    commands = DockerCommands(workspace.config, docker_host)
    assert commands.run(module, ["/bin/true"], 20.0) == "its container does not run"
    labels = {LABEL_OWNER: workspace.uuid, LABEL_MODULE: "m"}
    docker_engine.containers.run(python_base_image, ["sh", "-c", POLITE], detach=True, labels=labels)
    assert commands.run(module, ["sh", "-c", "touch /was-here"], 20.0) == ""
    assert commands.run(module, ["sh", "-c", "test -e /was-here && exit 5"], 20.0) == "sh ended with exit code 5"
    assert "exit code 127" in commands.run(module, ["/no/such/check"], 20.0) or "could not be run" in commands.run(
        module, ["/no/such/check"], 20.0
    )
    hanging = ["sh", "-c", "while [ ! -e /let-go ]; do sleep 0.05; done"]
    assert commands.run(module, hanging, 0.5) == "sh did not end within 0.5 s"
    assert commands.run(module, ["/bin/true"], 20.0) == "/bin/true of an earlier probe has not ended yet"
    containers(docker_engine, workspace)[0].exec_run(["touch", "/let-go"])
    wait_for(lambda: commands.run(module, ["/bin/true"], 20.0) == "", timeout_s=30, what="the end of the earlier one")


def test_a_container_that_fails_its_check_is_taken_back(
    broker: Broker,
    docker_engine: docker.DockerClient,
    docker_host: str,
    python_base_image: str,
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    def module(number: int, **spec: Any) -> DesiredModule:
        argv = ["sh", "-c", POLITE, str(number)]
        return DesiredModule(spec=ModuleSpec(kind="docker", image=python_base_image, command=argv, **spec))

    with (
        SmallHub(workspace, broker.port) as hub,
        AgentProcess(workspace, tmp_path / "device", env={"DOCKER_HOST": docker_host}) as agent,
    ):
        hub.deploy({"box": module(1)})
        agent.wait_state("box", "running", timeout_s=60)
        never = Probe(kind="exec", command=["/bin/false"], timeout_s=10.0)
        hub.deploy({"box": module(2, probe=never, update=UpdatePolicy(ready_within_s=8.0))})
        wait_for_or_show(agent, lambda: any(d.action == "rollback" for d in agent.decisions()), 60, "the rollback")
        wait_for_or_show(agent, lambda: _running_commands(docker_engine, workspace) == ["1"], 60, "the version before")
        wait_for_or_show(agent, lambda: (s := agent.module("box")) and s.state == "running" and s.rolled_back_from, 60, "it told")
        assert any("/bin/false ended with exit code 1" in d.reason for d in agent.decisions())
