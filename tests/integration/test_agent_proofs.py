"""The proof that an ONNX image carries, repeated on the device before the version that works is stopped."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edge_agent.engines.proofs import Proofs
from edge_agent.reconcile.situation import ProofState
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredModule, ModuleSpec, UpdatePolicy
from hedgerow.contracts.image import PARITY_FILE, SCORING_CONFIG_FILE, ScoringConfig, ServedModel
from hedgerow.contracts.proof import PARITY_INDEX_FILE, ParityIndex
from hedgerow.contracts.service import ImagePin
from tests import scoring_models
from tests.agent_builders import Workspace, pin
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.agent_registry import Registry, digest, open_registry, tar
from tests.fixtures.brokers import Broker
from tests.small_hub import SmallHub
from tests.waiting import wait_for

ROWS = 5
ENVIRONMENT = {"PATH": os.environ["PATH"]}


def files(note: str, *, off_by: float | None) -> dict[str, bytes]:
    """An image's files; ``off_by`` is how far its recorded answers are from the model's, None: it carries none."""
    model = scoring_models.iris().read_bytes()
    served = ServedModel(name="iris", version=1, digest=digest(model), path="models/iris", entry="models/iris/model.onnx")
    found = {"models/iris/model.onnx": model, SCORING_CONFIG_FILE: encode(ScoringConfig(models=[served])), "note": note.encode()}
    if off_by is not None:
        rows = scoring_models.iris_rows()[0][:ROWS]
        answers = scoring_models.iris_classifier().predict_proba(rows).astype(np.float32) + np.float32(off_by)
        arrays = io.BytesIO()
        np.savez(arrays, input_0=rows, output_0=answers)
        index = ParityIndex(inputs=["X"], outputs=["probabilities"])
        found |= {PARITY_FILE: arrays.getvalue(), PARITY_INDEX_FILE: encode(index)}
    return found


@dataclass
class Bench:
    """Proofs of images in a folder of the test's."""

    folder: Path
    changed: threading.Event = field(default_factory=threading.Event)

    def image(self, *, off_by: float | None) -> ImagePin:
        for name, content in files("", off_by=off_by).items():
            path = self.folder / "image" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return pin()

    def proofs(self) -> Proofs:
        return Proofs(self.folder / "proofs", lambda _: self.folder / "image", ENVIRONMENT, self.changed.set)

    def outcome(self, proofs: Proofs, image: ImagePin) -> ProofState:
        wait_for(lambda: proofs.states()[image.digest].passed is not None, timeout_s=120, what="the proof")
        assert self.changed.wait(30)
        assert not list((self.folder / "proofs").iterdir()), "something was left behind"
        return proofs.states()[image.digest]


@pytest.mark.parametrize(("off_by", "passed"), [(0.0, True), (0.2, False)])
def test_recorded_answers_must_come_out(off_by: float, passed: bool, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    image, proofs = bench.image(off_by=off_by), bench.proofs()
    proofs.want(image)
    state = bench.outcome(proofs, image)
    assert state.passed is passed
    assert passed or "the proof of iris failed on this device" in state.detail


def test_a_proof_that_nobody_wants_any_more_is_given_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    image, proofs = bench.image(off_by=0.2), bench.proofs()
    proofs.want(image)
    proofs.keep_only(())
    assert proofs.states() == {}
    proofs.want(image)
    assert bench.outcome(proofs, image).passed is False


@pytest.fixture
def registry() -> Iterator[Registry]:
    with open_registry() as made:
        yield made


def module(registry: Registry, note: str, *, off_by: float | None) -> DesiredModule:
    image = registry.image(tar(*files(note, off_by=off_by).items()))
    return DesiredModule(spec=ModuleSpec(image="shuttle:1", update=UpdatePolicy(commit_after_s=0.5)), image=image)


def test_an_update_whose_proof_fails_is_refused_and_the_old_version_runs_on(
    broker: Broker, registry: Registry, tmp_path: Path
) -> None:
    workspace = Workspace(broker_url=broker.url, registry_url=registry.url, uuid=os.urandom(16).hex())
    with SmallHub(workspace, broker.port) as hub, AgentProcess(workspace, tmp_path / "device") as agent:
        first = module(registry, "first", off_by=None)
        hub.deploy({"iris": first})
        agent.wait_state("iris", "running", timeout_s=90)
        pid = agent.wait_pid("iris")
        bad = module(registry, "bad", off_by=0.2)
        hub.deploy({"iris": bad})
        wait_for_or_show(
            agent, lambda: any(d.action == "refuse-update" for d in agent.decisions()), 90, "the refusal of the update"
        )
        wait_for(lambda: hub.report is not None and hub.report.desired.code == 500, timeout_s=30, what="the report")
        assert hub.report is not None
        status = hub.report.modules["iris"]
        assert bad.image is not None
        assert first.image is not None
        assert status.rolled_back_from == bad.image.digest
        assert "the proof of iris failed on this device" in (status.rollback_reason or "")
        assert status.image_digest == first.image.digest
        assert agent.pid_of("iris") == pid
        good = module(registry, "good", off_by=0.0)
        hub.deploy({"iris": good})
        wait_for_or_show(agent, lambda: any(d.action == "commit" for d in agent.decisions()), 90, "the commit")
        assert good.image is not None
        assert agent.wait_state("iris", "running").image_digest == good.image.digest
        proven = [d.module for d in agent.decisions() if d.action == "prove"]
        assert proven == ["iris", "iris"]
