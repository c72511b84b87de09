"""An ONNX image as a process module: pulled, served by the real runtime, scored, watched, its telemetry shipped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredModule, ModuleSpec
from hedgerow.contracts.image import SCORING_CONFIG_FILE, ScoringConfig, ServedModel
from hedgerow.contracts.service import ImagePin
from tests import scoring_models
from tests.agent_builders import Workspace
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.agent_registry import Registry, digest, open_registry, tar
from tests.fixtures.brokers import Broker
from tests.small_hub import SmallHub
from tests.waiting import wait_for


@pytest.fixture
def registry() -> Iterator[Registry]:
    with open_registry() as made:
        yield made


@pytest.fixture
def image(registry: Registry) -> ImagePin:
    """The iris classifier as the packager lays an image out."""
    model = scoring_models.iris().read_bytes()
    served = ServedModel(name="iris", version=1, digest=digest(model), path="models/iris", entry="models/iris/model.onnx")
    config = encode(ScoringConfig(models=[served]))
    return registry.image(tar(("models/iris/model.onnx", model)), tar((SCORING_CONFIG_FILE, config)))


def score(address: str) -> httpx.Response:
    rows, _ = scoring_models.iris_rows()
    tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": rows[0].tolist()}
    return httpx.post(f"{address}/v2/models/iris/infer", json={"inputs": [tensor]}, timeout=20)


@pytest.mark.alone
def test_from_the_registry_to_scores_and_telemetry_and_again_offline(
    broker: Broker, registry: Registry, image: ImagePin, tmp_path: Path
) -> None:
    workspace = Workspace(broker_url=broker.url, registry_url=registry.url, uuid=os.urandom(16).hex())
    module = DesiredModule(spec=ModuleSpec(image="shuttle:1"), image=image)
    with SmallHub(workspace, broker.port) as hub, AgentProcess(workspace, tmp_path / "device") as agent:
        hub.deploy({"iris": module})
        status = agent.wait_state("iris", "running", timeout_s=60)
        assert status.image_digest == image.digest
        assert status.address is not None
        assert score(status.address).status_code == 200
        wait_for_or_show(agent, hub.bodies, 20, "the module's telemetry")

        pid = agent.wait_pid("iris")
        requests = len(registry.requests)
        os.kill(pid, signal.SIGKILL)
        agent.wait_pid("iris", other_than=pid, timeout_s=1.0)
        again = wait_for_or_show(
            agent, lambda: (s := agent.module("iris")) and s.state == "running" and s.pid != pid and s, 60, "the next readiness"
        )
        assert again
        assert again.address is not None
        assert score(again.address).status_code == 200
        assert len(registry.requests) == requests

        agent.stop()
        os.kill(again.pid or 0, signal.SIGKILL)
        wait_for(lambda: agent.pid_of("iris") is None, what="the module's end")
        registry.contents.clear()
        agent.start()
        agent.wait_state("iris", "running", timeout_s=60)
