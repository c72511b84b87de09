"""The examples: a scoring script as people have it, and a sensor module whose telemetry arrives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hedgerow.contracts.device import to_toml
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.sdk.client import Client
from tests.fixtures.control_plane import ControlPlane
from tests.fixtures.parts import search_path
from tests.fixtures.real_process import RealProcess
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"


def train(folder: Path) -> Path:
    """Run the training example outside of a recorded run; returns the model's folder."""
    subprocess.run([sys.executable, str(EXAMPLES / "iris" / "train.py")], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "outputs" / "model"


def test_the_scoring_script_serves_the_trained_model(tmp_path: Path) -> None:
    model = train(tmp_path)
    arguments = ["--script", str(EXAMPLES / "iris" / "score.py"), "--model-dir", str(model)]
    with ScoringServer(tmp_path / "server", *arguments) as server:
        answer = server.score({"data": [[5.1, 3.5, 1.4, 0.2]]})
    assert (answer.status_code, answer.json()) == (200, ["setosa"])


def test_the_sensor_asks_the_model_and_its_telemetry_arrives(control_plane: ControlPlane, client: Client, tmp_path: Path) -> None:
    client.models.register("iris", train(tmp_path), framework="onnx")
    client.activities.wait(client.images.build("iris", ["iris:1"]).id)
    config = tmp_path / "device.toml"
    config.write_text(to_toml(client.devices.enroll("press-1").config))
    config.chmod(0o600)
    argv = [sys.executable, "-P", "-m", "edge_agent", "run", "--config", str(config), "--stop-modules-on-exit"]
    agent = RealProcess(argv, log=tmp_path / "agent.log", env={"PATH": search_path(), "HOME": str(tmp_path)}).start()
    try:
        client.edge.deploy(EdgeDeployment(name="scorer", target="*", modules={"scorer": ModuleSpec(image="iris:1")}))
        address = wait_for(lambda: module_address(client), timeout_s=30, what="the scorer on the device")
        sensor = ModuleSpec(
            command=[sys.executable, str(EXAMPLES / "edge" / "sensor.py")], variables={"SCORER": f"{address}/score"}
        )
        both = {"scorer": ModuleSpec(image="iris:1"), "sensor": sensor}
        client.edge.deploy(EdgeDeployment(name="scorer", target="*", modules=both))
        message = wait_for(lambda: client.telemetry.list("press-1", "sensor").items, timeout_s=30, what="a reading in the hub")[0]
        assert set(json.loads(message.body)["score"]) == {"label", "probabilities"}
    finally:
        agent.stop(grace_s=30)


def module_address(client: Client) -> str | None:
    reported = client.devices.get("press-1").reported
    scorer = reported.modules.get("scorer") if reported else None
    return scorer.address if scorer and scorer.state == "running" else None
