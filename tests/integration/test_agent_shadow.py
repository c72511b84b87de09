"""A shadow beside an ONNX module on a real device: same inputs, differences told, the module itself never touched."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredModule, ModuleSpec, Shadow, UpdatePolicy
from hedgerow.contracts.image import SCORING_CONFIG_FILE, ScoringConfig, ServedModel
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.status import ShadowStatus
from tests.agent_builders import Workspace
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.agent_registry import Registry, digest, open_registry, tar
from tests.fixtures.brokers import Broker, MosquittoFactory
from tests.small_hub import SmallHub

TIMES = 5


@pytest.fixture(scope="module")
def broker(mosquitto: MosquittoFactory) -> Iterator[Broker]:
    with mosquitto() as made:
        yield made


@pytest.fixture
def registry() -> Iterator[Registry]:
    with open_registry() as made:
        yield made


def multiplying(registry: Registry, factor: float, version: int) -> ImagePin:
    """An image of model "times": x f32[N] -> y = factor * x."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy")
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "graph", [x], [y], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    onnx.checker.check_model(model)
    served = ServedModel(
        name="times", version=version, digest=digest(model), path="models/times", entry="models/times/model.onnx"
    )
    config = encode(ScoringConfig(models=[served]))
    return registry.image(tar(("models/times/model.onnx", model)), tar((SCORING_CONFIG_FILE, config)))


def broken(registry: Registry) -> ImagePin:
    """An image that cannot be served."""
    return registry.image(tar(("models/times/model.onnx", b"no model")), tar((SCORING_CONFIG_FILE, b"{}")))


class Porch:
    """A device whose module "times" doubles."""

    def __init__(self, hub: SmallHub, agent: AgentProcess, registry: Registry) -> None:
        self.hub, self.agent, self.registry = hub, agent, registry
        self.double = multiplying(registry, 2.0, 1)

    def deploy(self, image: ImagePin, shadow: ImagePin | None) -> None:
        spec = ModuleSpec(
            image="times:1",
            shadow=None if shadow is None else Shadow(image="times:2"),
            update=UpdatePolicy(commit_after_s=1.0),
        )
        self.hub.deploy({"times": DesiredModule(spec=spec, image=image, shadow_image=shadow)})

    def score(self, value: float) -> float:
        status = self.agent.module("times")
        assert status is not None
        assert status.address is not None
        tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [value]}
        answered = httpx.post(f"{status.address}/v2/models/times/infer", json={"inputs": [tensor]}, timeout=20)
        assert answered.status_code == 200
        return float(answered.json()["outputs"][0]["data"][0])

    def shadow(self) -> ShadowStatus | None:
        """As the hub was told last."""
        report = self.hub.report
        return report.modules["times"].shadow if report and "times" in report.modules else None

    def wait_shadow(self, what: str, look: Callable[[ShadowStatus], bool]) -> ShadowStatus:
        def found() -> ShadowStatus | None:
            shadow = self.shadow()
            return shadow if shadow is not None and look(shadow) else None

        shadow = wait_for_or_show(self.agent, found, 60, what)
        assert shadow is not None
        return shadow

    def compare(self, more: int) -> ShadowStatus:
        """Score until so many more requests were compared; returns what the hub is told then."""
        before = self.shadow()
        wanted = (before.compared if before else 0) + more

        def enough() -> ShadowStatus | None:
            self.score(1.0)
            shadow = self.shadow()
            return shadow if shadow is not None and shadow.compared >= wanted else None

        shadow = wait_for_or_show(self.agent, enough, 60, f"{wanted} compared requests")
        assert shadow is not None
        return shadow


@pytest.fixture
def porch(broker: Broker, registry: Registry, tmp_path: Path) -> Iterator[Porch]:
    workspace = Workspace(broker_url=broker.url, registry_url=registry.url, uuid=os.urandom(16).hex())
    with (
        SmallHub(workspace, broker.port) as hub,
        AgentProcess(workspace, tmp_path / "device", "--report-period-s", "1") as agent,
    ):
        made = Porch(hub, agent, registry)
        made.deploy(made.double, None)
        agent.wait_state("times", "running", timeout_s=60)
        yield made


def test_a_shadow_is_compared_and_the_module_runs_on(porch: Porch) -> None:
    pid = porch.agent.wait_pid("times")
    triple = multiplying(porch.registry, 3.0, 2)
    porch.deploy(porch.double, triple)
    told = porch.wait_shadow("the shadow running", lambda shadow: shadow.state == "running")
    assert told.image_digest == triple.digest
    told = porch.compare(TIMES)
    assert porch.score(1.0) == 2.0
    assert told.different == told.compared
    assert told.failed == 0
    assert told.worst_difference == 1.0
    assert told.latency_p50_s is not None
    assert told.shadow_latency_p50_s is not None
    assert porch.hub.report is not None
    assert list(porch.hub.report.modules) == ["times"]
    # Nothing that the shadow could say reaches the hub: every message is the module's own.
    assert porch.agent.pid_of("times~shadow") is not None

    comparer = porch.agent.wait_pid("times~compare")
    porch.agent.kill()
    porch.agent.start()
    again = porch.compare(TIMES)
    assert again.compared >= told.compared + TIMES
    assert porch.agent.pid_of("times~compare") == comparer

    porch.deploy(porch.double, None)
    wait_for_or_show(porch.agent, lambda: porch.agent.pid_of("times~shadow") is None, 60, "the end of the shadow")
    wait_for_or_show(
        porch.agent, lambda: not (porch.agent.state / "modules" / "times~compare").exists(), 60, "the end of the comparer"
    )
    assert porch.agent.pid_of("times") == pid
    assert porch.score(1.0) == 2.0


def test_a_shadow_that_cannot_run_does_not_touch_the_module(porch: Porch) -> None:
    pid = porch.agent.wait_pid("times")
    porch.deploy(porch.double, broken(porch.registry))
    told = porch.wait_shadow("the delays of a crashing shadow", lambda shadow: shadow.state == "backoff")
    assert told.compared == 0
    assert porch.hub.report is not None
    wait_for_or_show(
        porch.agent, lambda: porch.hub.report is not None and porch.hub.report.desired.code == 200, 60, "the state being applied"
    )
    assert porch.score(4.0) == 8.0
    assert porch.agent.pid_of("times") == pid
    decisions = {(one.module, one.action) for one in porch.agent.decisions()}
    assert ("times", "shadow-start") in decisions
    assert len([one for one in porch.agent.decisions() if (one.module, one.action) == ("times", "start")]) == 1


def test_promotion_is_an_update_with_a_trial_and_pulls_nothing_again(porch: Porch) -> None:
    nearly = multiplying(porch.registry, 2.00001, 2)
    porch.deploy(porch.double, nearly)
    told = porch.compare(TIMES)
    assert (told.different, told.failed) == (0, 0)
    pulled = len(porch.registry.requests)
    porch.deploy(nearly, None)

    def promoted() -> bool:
        status = porch.agent.module("times")
        return status is not None and status.state == "running" and status.image_digest == nearly.digest

    wait_for_or_show(porch.agent, promoted, 60, "the promoted version")

    def committed() -> bool:
        return ("times", "commit") in [(one.module, one.action) for one in porch.agent.decisions()]

    wait_for_or_show(porch.agent, committed, 60, "the end of its trial")
    assert porch.score(1.0) == pytest.approx(2.00001)
    assert len(porch.registry.requests) == pulled


def test_what_the_agents_metrics_say_and_that_everything_stands_back(porch: Porch) -> None:
    porch.deploy(porch.double, multiplying(porch.registry, 3.0, 2))
    told = porch.compare(TIMES)
    assert porch.agent.metric("hedgerow_agent_shadow_compared_total") >= told.compared
    assert porch.agent.metric("hedgerow_agent_shadow_different_total") >= told.different
    assert porch.agent.metric("hedgerow_agent_shadow_worst_difference") == 1.0
    assert porch.agent.metric("hedgerow_agent_shadow_state") == 1.0
    module = porch.agent.wait_pid("times")
    for name in ("times~shadow", "times~compare"):
        assert os.getpriority(os.PRIO_PROCESS, porch.agent.wait_pid(name)) > os.getpriority(os.PRIO_PROCESS, module)
    # A comparer that is killed goes on where it was.
    comparer = porch.agent.wait_pid("times~compare")
    os.kill(comparer, signal.SIGKILL)
    porch.agent.wait_pid("times~compare", other_than=comparer)
    assert porch.compare(TIMES).compared >= told.compared
