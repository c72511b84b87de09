"""A shadow through the whole house: images and deployment on a real control plane, a real agent, differences told, promotion."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hedgerow.contracts.api_fleet import EnrolledDevice
from hedgerow.contracts.device import to_toml
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec, Shadow, UpdatePolicy
from hedgerow.sdk.client import Client
from hedgerow.sdk.edge_shadows import DeviceShadow, NoShadow, ShadowNotConvincing
from hedgerow.sdk.errors import ApiError
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.controller_process import add_image, score
from tests.fixtures.control_plane import ControlPlane
from tests.fixtures.parts import search_path

ENOUGH = 5
_CLI = [sys.executable, "-c", "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"]


class DeviceToml:
    """device.toml as the agent's process wants it."""

    def __init__(self, enrolled: EnrolledDevice) -> None:
        self.config = enrolled.config

    def write_toml(self, path: Path) -> Path:
        path.write_text(to_toml(self.config))
        path.chmod(0o600)
        return path


class Line:
    """A device "press" with the module "scorer", and the commands of a person."""

    def __init__(self, plane: ControlPlane, client: Client, agent: AgentProcess) -> None:
        self.plane, self.client, self.agent = plane, client, agent

    def deploy(self, image: str, shadow: str) -> None:
        spec = ModuleSpec(image=image, shadow=Shadow(image=shadow), update=UpdatePolicy(commit_after_s=1.0))
        self.client.edge.deploy(EdgeDeployment(name="line", target="deviceId = 'press'", modules={"scorer": spec}))

    def score(self) -> float:
        status = self.agent.wait_state("scorer", "running", timeout_s=90)
        return score(f"{status.address}/score")

    def compared(self, look: Callable[[DeviceShadow], bool]) -> DeviceShadow:
        """Score until the control plane tells of a comparison that is so."""

        def found() -> DeviceShadow | None:
            self.score()
            shadow = self.client.edge.shadows("line", "scorer")[0]
            return shadow if shadow.status is not None and look(shadow) else None

        shadow = wait_for_or_show(self.agent, found, 90, "what the shadow does, told by the control plane")
        assert shadow is not None
        return shadow

    def hedgerow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": search_path(), "HOME": str(self.plane.workspace), "HEDGEROW_WORKSPACE": str(self.plane.workspace)}
        done = subprocess.run(
            [*_CLI, *arguments], cwd=self.plane.workspace, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done


def test_a_new_model_is_tried_beside_the_old_one_and_promoted(
    control_plane: ControlPlane, client: Client, tmp_path: Path
) -> None:
    double, triple, nearly = (add_image(client, tmp_path / f"x{factor}", factor=factor) for factor in (2.0, 3.0, 2.00001))
    device = DeviceToml(client.devices.enroll("press"))
    with AgentProcess(device, tmp_path / "device", "--report-period-s", "1") as agent:
        line = Line(control_plane, client, agent)
        line.deploy(double, triple)
        assert line.score() == 2.0
        pid = agent.wait_pid("scorer")

        found = line.compared(lambda one: one.status is not None and one.status.different >= ENOUGH)
        assert (found.device, found.module, found.image, found.online) == ("press", "scorer", triple, True)
        assert found.status is not None
        assert found.status.worst_difference == 3.0  # of the row 1, 2, 3
        with pytest.raises(ShadowNotConvincing, match="had other answers"):
            client.edge.promote("line", "scorer", min_compared=ENOUGH)
        with pytest.raises(ApiError, match="shadow"):
            client.images.delete(triple)
        shown = line.hedgerow("edge", "shadow", "line")
        assert ("press" in shown.stdout, triple in shown.stdout) == (True, True), shown.stderr
        told = line.hedgerow("device", "invoke", "press", "GetShadowDifferences", '{"id": "scorer"}')
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)[0]["detail"].endswith("3.0, the module's is 2.0")

        line.deploy(double, nearly)
        line.compared(lambda one: one.image == nearly and one.status is not None and one.status.compared >= ENOUGH)
        assert agent.pid_of("scorer") == pid
        few = line.hedgerow("edge", "promote", "line", "scorer", "--min-compared", "1000000")
        assert (few.returncode, "1000000 are wanted" in few.stderr) == (1, True), few.stderr
        before = client.edge.get("line").revision
        dry = line.hedgerow("edge", "promote", "line", "scorer", "--min-compared", str(ENOUGH), "--dry-run")
        assert ("stop scorer" in dry.stdout, dry.stderr) == (True, ""), dry.stdout
        assert client.edge.get("line").revision == before
        done = line.hedgerow("edge", "promote", "line", "scorer", "--min-compared", str(ENOUGH), "--json")
        assert done.returncode == 0, done.stderr
        stored = client.edge.get("line")
        assert (stored.revision, stored.modules["scorer"].image) == (before + 1, nearly)
        assert stored.modules["scorer"].shadow is None
        promoted = client.images.get(nearly).digest

        def runs() -> bool:
            status = agent.module("scorer")
            return status is not None and status.state == "running" and status.image_digest == promoted

        wait_for_or_show(agent, runs, 90, "the promoted model")
        assert line.score() == pytest.approx(2.00001)
        wait_for_or_show(agent, lambda: agent.pid_of("scorer~shadow") is None, 60, "the end of the shadow")
        with pytest.raises(NoShadow):
            client.edge.promote("line", "scorer", force=True)
        assert client.edge.shadows("line") == []
