"""Images of other registries on a device: pulled from there by digest, and without the workspace's token."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import msgspec
import pytest

from edge_agent.errors import PullFailed
from edge_agent.images.docker_images import DockerImages, image_reference, remove_image
from edge_agent.images.docker_ledger import DockerLedger
from hedgerow.clock import SystemClock
from hedgerow.contracts.edge import DesiredModule
from hedgerow.contracts.foreign_image import pin_of
from hedgerow.contracts.iot_edge.read import read_iot_edge
from hedgerow.contracts.names import LABEL_OWNER
from hedgerow.contracts.service import ImagePin
from tests.agent_builders import Workspace
from tests.agent_process import AgentProcess
from tests.fixtures.brokers import MosquittoFactory
from tests.fixtures.oci_registry import OciRegistry
from tests.small_hub import SmallHub
from tests.waiting import wait_for

# Nobody answers there: what is pulled comes from elsewhere.
WORKSPACE = Workspace(registry_url="http://127.0.0.1:1")


@pytest.fixture
def foreign(docker_engine: docker.DockerClient, docker_registry: OciRegistry, python_base_image: str) -> Iterator[ImagePin]:
    """The pin of an image in somebody else's registry, which the engine does not have under that name."""
    repository = f"{docker_registry.address}/plant/agent-foreign"
    docker_engine.images.get(python_base_image).tag(repository, "1.4")
    lines = list(docker_engine.api.push(repository, tag="1.4", stream=True, decode=True))
    digest = next(line["aux"]["Digest"] for line in lines if "aux" in line)
    docker_engine.images.remove(f"{repository}:1.4")
    pin = pin_of(f"{repository}:1.4@{digest}")
    assert pin is not None
    yield pin
    # By this name only: the base image under it is the session's.
    with contextlib.suppress(docker.errors.ImageNotFound):
        docker_engine.images.remove(f"{repository}@{digest}")


def images(docker_host: str, folder: Path) -> DockerImages:
    ledger = DockerLedger(folder, lambda reference: remove_image(reference, docker_host))
    return DockerImages(WORKSPACE.config, ledger, SystemClock(), docker_host)


def test_it_is_pulled_from_its_own_registry(foreign: ImagePin, docker_host: str, tmp_path: Path) -> None:
    source = images(docker_host, tmp_path)
    assert not source.present(foreign)
    source.pull(foreign, lambda _text: None)
    assert source.present(foreign)
    assert (foreign.name, foreign.version) == ("agent-foreign", 1)
    assert image_reference(WORKSPACE.config, foreign).endswith(f"/plant/agent-foreign@{foreign.digest}")


def test_one_of_the_workspace_is_still_asked_of_the_workspace(foreign: ImagePin, docker_host: str, tmp_path: Path) -> None:
    ours = msgspec.structs.replace(foreign, reference=None)
    assert image_reference(WORKSPACE.config, ours) == f"127.0.0.1:1/agent-foreign@{foreign.digest}"
    with pytest.raises(PullFailed, match=r"127\.0\.0\.1:1"):
        images(docker_host, tmp_path).pull(ours, lambda _text: None)


def test_a_module_of_such_an_image_runs_under_the_names_of_iot_edge(
    foreign: ImagePin, mosquitto: MosquittoFactory, docker_engine: docker.DockerClient, docker_host: str, tmp_path: Path
) -> None:
    """As a hub composes it from IoT Edge's JSON: nothing but the digest decides what runs."""
    settings = {"image": f"{foreign.reference}@{foreign.digest}", "createOptions": json.dumps({"Cmd": ["sleep", "1000"]})}
    module = {"type": "docker", "status": "running", "restartPolicy": "always", "settings": settings}
    agent_part = {"schemaVersion": "1.1", "runtime": {"type": "docker"}, "systemModules": {}, "modules": {"TempSensor": module}}
    read, _ = read_iot_edge({"modulesContent": {"$edgeAgent": {"properties.desired": agent_part}}}, "line", "*")
    spec = read.modules["tempsensor"]
    with mosquitto() as broker:
        workspace = Workspace(broker_url=broker.url, registry_url="http://127.0.0.1:1", uuid=os.urandom(16).hex())
        try:
            with (
                SmallHub(workspace, broker.port) as hub,
                AgentProcess(workspace, tmp_path / "device", env={"DOCKER_HOST": docker_host}),
            ):
                hub.deploy({"tempsensor": DesiredModule(spec=spec, image=pin_of(spec.image or ""))})
                wait_for(lambda: hub.state_of("tempsensor") == "running", timeout_s=60, what="the module running")
        finally:
            # Containers outlive their agent.
            _remove_all(docker_engine, {"label": f"{LABEL_OWNER}={workspace.uuid}"})


def _remove_all(docker_engine: docker.DockerClient, mine: dict[str, str]) -> None:
    for container in docker_engine.containers.list(all=True, ignore_removed=True, filters=mine):
        container.remove(force=True, v=True)
    for network in docker_engine.networks.list(filters=mine):
        network.remove()
