"""Containers of a device in their own network, with real containers: names, and options that pass."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from edge_agent.engines.engine import Launch
from edge_agent.engines.engine_docker import DockerEngine
from edge_agent.errors import EngineBlind
from edge_agent.reconcile.situation import Exited, Running, Wanted, fingerprint
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.edge import DesiredModule, Limits, ModuleSpec
from hedgerow.contracts.names import LABEL_MODULE, LABEL_OWNER
from tests.agent_builders import Workspace
from tests.waiting import wait_for

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


@dataclass
class Site:
    client: docker.DockerClient
    config: DeviceConfig
    engine: DockerEngine
    image: str

    def start(self, name: str, command: list[str], **spec: Any) -> Wanted:
        module = DesiredModule(spec=ModuleSpec(kind="docker", command=command, **({"image": self.image} | spec)))
        wanted = Wanted(name, module.spec, None, fingerprint(module))
        self.engine.start(Launch(wanted, {}))
        return wanted

    def ended(self, name: str) -> Exited | None:
        return next((seen for seen in self.engine.look() if seen.name == name and isinstance(seen, Exited)), None)

    def runs(self, name: str) -> bool:
        return any(seen.name == name and isinstance(seen, Running) for seen in self.engine.look())

    def container(self, name: str) -> Container:
        return next(c for c in self.containers() if c.labels[LABEL_MODULE] == name)

    def containers(self) -> list[Container]:
        return list(self.client.containers.list(all=True, filters={"label": self.label}))

    def networks(self) -> list[str]:
        return [network.name for network in self.client.networks.list(filters={"label": self.label})]

    @property
    def label(self) -> str:
        return f"{LABEL_OWNER}={self.config.device_uuid}"

    def log(self, name: str) -> str:
        return str(self.container(name).logs().decode())


def _sees(engine: DockerEngine) -> bool:
    try:
        engine.look()
    except EngineBlind:
        return False
    return True


@pytest.fixture
def site(docker_engine: docker.DockerClient, docker_host: str, python_base_image: str) -> Iterator[Site]:
    config = Workspace(uuid=uuid.uuid4().hex).config
    engine = DockerEngine(config, [], lambda _host: None, docker_host, log_bytes_max=60_000)
    engine.watch(lambda: None)
    wait_for(lambda: _sees(engine), timeout_s=30, what="the first look at the Docker engine")
    made = Site(docker_engine, config, engine, python_base_image)
    yield made
    engine.close()
    for container in made.containers():
        container.remove(force=True, v=True)
    for network in docker_engine.networks.list(filters={"label": made.label}):
        network.remove()


def test_modules_reach_each_other_by_both_names_and_the_network_goes_with_the_last(site: Site) -> None:
    site.start("temp-sensor", SLEEP, display_name="TempSensor")
    assert site.networks() == [f"hedgerow-{site.config.device_uuid[:8]}"]
    ask = "import socket; print({socket.gethostbyname(name) for name in ('temp-sensor', 'TempSensor')})"
    site.start("asker", ["python3", "-c", ask])
    wait_for(lambda: site.ended("asker"), timeout_s=60, what="the answer")
    address = next(iter(site.container("temp-sensor").attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
    assert site.log("asker").strip() == f"{{'{address}'}}"
    site.engine.stop("temp-sensor", 5.0)
    site.engine.remove("temp-sensor", purge=True)
    assert len(site.networks()) == 1, "another module still needs it"
    site.engine.remove("asker", purge=True)
    assert site.networks() == []


def test_a_module_with_a_network_of_its_own_needs_none_of_ours(site: Site) -> None:
    site.start("alone", SLEEP, create_options={"HostConfig": {"NetworkMode": "none"}})
    assert site.networks() == []
    assert list(site.container("alone").attrs["NetworkSettings"]["Networks"]) == ["none"]


def test_a_container_whose_network_was_taken_away_is_made_anew(site: Site) -> None:
    wanted = site.start("m", SLEEP)
    site.engine.stop("m", 5.0)
    first = site.container("m").id
    site.client.networks.list(filters={"label": site.label})[0].remove()
    site.engine.start(Launch(wanted, {}))
    wait_for(lambda: site.runs("m"), timeout_s=30, what="the module")
    assert site.container("m").id != first
    assert len(site.networks()) == 1


def test_options_limits_health_check_and_log_reach_the_engine(site: Site) -> None:
    volume = f"models-{site.config.device_uuid}"
    options = {
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000},
        "HostConfig": {"ShmSize": 33_554_432, "Dns": ["192.0.2.1"], "Binds": [f"{volume}:/models"]},
        "Labels": {"mine": "yes"},
    }
    limits = Limits(memory_bytes=64_000_000, cpus=0.5, open_files=128, processes=40)
    site.start("m", SLEEP, create_options=options, limits=limits)
    container = site.container("m")
    host, config = container.attrs["HostConfig"], container.attrs["Config"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64_000_000, 500_000_000, 40)
    assert {"Name": "nofile", "Soft": 128, "Hard": 128} in host["Ulimits"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "20000", "max-file": "3"}}
    assert (host["ShmSize"], host["Dns"], host["Binds"]) == (33_554_432, ["192.0.2.1"], [f"{volume}:/models"])
    assert config["Healthcheck"]["Test"] == ["CMD", "true"]
    assert config["Labels"]["mine"] == "yes"
    container.remove(force=True, v=True)
    site.client.volumes.get(volume).remove()
