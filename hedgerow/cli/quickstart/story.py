"""The quickstart's story: train, register, build, deploy, score, enrol, run on a device, kill, see it come back."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from hedgerow.cli.output import count, short, size
from hedgerow.cli.quickstart.docker_base import find_docker_base
from hedgerow.cli.quickstart.errors import DidNotHappen, ExampleDataMissing
from hedgerow.cli.quickstart.expectations import Expectations, load_expectations
from hedgerow.cli.quickstart.processes import Place
from hedgerow.cli.quickstart.screen import Screen
from hedgerow.contracts.device import to_toml
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.status import ModuleStatus
from hedgerow.errors import HedgerowError
from hedgerow.sdk.connect import connect

if TYPE_CHECKING:
    from hedgerow.sdk.client import Client

STEPS = 9
MODEL, ENDPOINT, DEVICE, MODULE = "shuttle-anomaly", "shuttle", "press-1", "scorer"
TELEMETRY_ROWS = 20


@dataclass
class Story:
    """What the steps hand on to each other; ``told`` becomes the summary, ``figures`` are what was measured (seconds)."""

    place: Place
    screen: Screen
    environment: Mapping[str, str]
    told: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def tell(self, ports: list[str], data: Path) -> None:
        """All nine steps. Raises HedgerowError at the first one that fails."""
        self._start_control_plane(ports)
        with connect(self.place.workspace, start=False) as client:
            run_id, expected = self._train(client, data)
            self._register(client, run_id)
            self._build(client)
            self._deploy(client)
            self._score(client, expected)
            self._enroll(client)
            self._run_on_device(client, expected)
            self._kill_and_watch(client)
            self._link(client)

    def _start_control_plane(self, ports: list[str]) -> None:
        with self.screen.step("Starting the control plane") as step:
            argv = ["registry.up", "--workspace", str(self.place.workspace), *ports]
            process = self.place.start("control-plane", argv, self.environment)
            ready = self.place.workspace / "run" / "up.json"
            self.place.wait_for("The control plane's start", lambda: ready.exists() or process.poll() is not None, 30)
            if process.poll() is not None:
                log = (self.place.folder / "control-plane.log").read_text(errors="replace").strip().splitlines()
                raise DidNotHappen(
                    what="The control plane's start", seconds=30, seen=log[-1] if log else "nothing", folder=self.place.folder
                )
            with connect(self.place.workspace, start=False) as client:
                info = client.info()
            self.told["control plane"] = info.url
            step.result(f"{info.url}, MQTT broker at {info.broker_url}")

    def _train(self, client: Client, data: Path) -> tuple[str, Expectations]:
        with self.screen.step("Training an anomaly detector on 49 097 rows of Space Shuttle sensors") as step:
            run = client.runs.submit("shuttle", Path(__file__).parent / "shuttle", "train.py", [str(data)])
            client.activities.wait(run.activity_id, lambda event: step.note(event.log or event.step))
            run = client.runs.get(run.id)
            self.told["run"] = f"{run.id}  auc {run.metrics['auc']:.4f}  snapshot {short(run.snapshot_digest)}"
            step.result(f"run {run.id}: AUC {run.metrics['auc']:.4f}, converted to ONNX")
            outputs = self.place.folder / "outputs"
            client.runs.download(run.id, outputs)
            return run.id, load_expectations(outputs / "model")

    def _register(self, client: Client, run_id: str) -> None:
        with self.screen.step("Registering the model") as step:
            manifest = client.models.register_outputs(
                MODEL,
                client.runs.get(run_id),
                "model",
                framework="onnx",
                description="Isolation forest on Space Shuttle sensor rows",
                tags={"data": "shuttle", "task": "anomaly-detection"},
            )
            self.told["model"] = f"{manifest.name}:{manifest.version}  {manifest.digest}"
            step.result(f"{manifest.name}:{manifest.version} ({short(manifest.digest)}) from run {run_id}")

    def _build(self, client: Client) -> None:
        with self.screen.step("Building images") as step:
            onnx = client.images.build(MODEL, [f"{MODEL}:1"])
            built = client.activities.wait(onnx.id, lambda event: step.note(event.step))
            record = client.images.get(built.result["image"])
            self.told["onnx image"] = f"{record.name}:{record.version}  {record.digest}"
            verdict = record.verification.reason if record.verification else ""
            step.result(f"onnx    {record.name}:{record.version} ({short(record.digest)}, {size(record.size_bytes)}) {verdict}")
            step.note("looking for a Docker engine")
            base, reason = find_docker_base(self.environment)
            if base is None:
                step.result(f"docker  left out: {reason}")
                return
            try:
                docker = client.images.build(f"{MODEL}-docker", [f"{MODEL}:1"], kind="docker", base=f"docker:{base}")
                built = client.activities.wait(docker.id, lambda event: step.note(event.step))
            except HedgerowError as problem:
                step.result(f"docker  left out: {problem.sentence()}")
                return
            record = client.images.get(built.result["image"])
            self.told["docker image"] = f"{record.name}:{record.version}  {record.digest}"
            step.result(f"docker  {record.name}:{record.version} ({short(record.digest)}, {size(record.size_bytes)}) on {base}")

    def _deploy(self, client: Client) -> None:
        with self.screen.step("Deploying it as a service") as step:
            activity = client.services.deploy(ENDPOINT, f"{MODEL}:1")
            client.activities.wait(activity.id, lambda event: step.note(event.step))
            endpoint = client.services.get(ENDPOINT)
            self.told["service"] = str(endpoint.scoring_url)
            reason = "; ".join(d.reason for d in endpoint.deployments if d.reason)
            step.result(f"{endpoint.scoring_url}" + (f" ({reason})" if reason else ""))

    def _score(self, client: Client, expected: Expectations) -> None:
        with self.screen.step("Scoring real rows over HTTP and comparing with the trained model") as step:
            score_url = str(client.services.get(ENDPOINT).scoring_url)
            infer_url = score_url.removesuffix("/score") + f"/v2/models/{MODEL}/infer"
            expected.check_aml(_post(score_url, expected.aml_body()), score_url)
            step.result(f"POST {score_url}: {len(expected.rows)} rows, {expected.anomalies} anomalies, as trained")
            expected.check_oip(_post(infer_url, expected.oip_body()), infer_url)
            step.result(f"POST {infer_url}: the same")

    def _enroll(self, client: Client) -> None:
        with self.screen.step("Enrolling a device and starting its agent") as step:
            enrolled = client.devices.enroll(DEVICE, {"site": "hangar-1"})
            config = self.place.device / "device.toml"
            config.write_text(to_toml(enrolled.config), encoding="utf-8")
            config.chmod(0o600)
            argv = ["edge_agent", "run", "--config", str(config), "--stop-modules-on-exit"]
            self.place.start("agent", argv, self.environment)
            self.place.wait_for("The device's first report", lambda: client.devices.get(DEVICE).online, 15)
            self.told["device"] = f"{DEVICE}  {enrolled.device.uuid}"
            step.result(f"{DEVICE} ({enrolled.device.uuid}) is online")

    def _run_on_device(self, client: Client, expected: Expectations) -> None:
        with self.screen.step("Deploying the image to the device as a module, over MQTT") as step:
            module = ModuleSpec(image=f"{MODEL}:1", restart_policy="always")
            client.edge.deploy(EdgeDeployment(name="shuttle", target="tags.site = 'hangar-1'", modules={MODULE: module}))
            self.place.wait_for("The module's start", lambda: self._running(client) is not None, 30)
            address = f"{self._module(client).address}/score"
            for row in range(TELEMETRY_ROWS):
                _post(address, {"data": expected.rows[row : row + 1].tolist()})
            expected.check_aml(_post(address, expected.aml_body()), address)
            step.result(f"module {MODULE} at {address} answers as trained")
            step.note("waiting for telemetry")
            self.place.wait_for("The module's telemetry", lambda: client.telemetry.list(DEVICE).items, 15)
            self._look_at_telemetry(client, step.result)

    def _look_at_telemetry(self, client: Client, result: Any) -> None:  # noqa: ANN401 - a bound method
        stored = client.telemetry.list(DEVICE).items
        newest = stored[-1]
        self.told["telemetry"] = f"{count(len(stored), 'message')} stored, last {_shortened(newest.body, 100)}"
        result(f"telemetry in the hub's database: #{newest.sequence} {_shortened(newest.body, 80)}")
        metrics = httpx.get(f"{client.info().url}/metrics").text
        about = [text for text in metrics.splitlines() if text.startswith("hedgerow_telemetry_messages") and DEVICE in text]
        if not about:
            raise DidNotHappen(what="The device's line at /metrics", seconds=0, seen="nothing", folder=self.place.folder)
        result(f"and at /metrics: {about[0]}")

    def _kill_and_watch(self, client: Client) -> None:
        with self.screen.step("Killing the module") as step:
            before = self._module(client)
            if before.pid is None:
                raise DidNotHappen(what="A pid of the module", seconds=0, seen=before, folder=self.place.folder)
            clock = self.place.clock
            killed_s = clock.monotonic_s()
            os.kill(before.pid, signal.SIGKILL)
            self.place.wait_for("The module's return", lambda: self._running(client, other_than=before.pid), 15)
            seconds = clock.monotonic_s() - killed_s
            after = self._module(client)
            self.figures["module_back_s"] = seconds
            self.told["module"] = f"{MODULE}  killed, running and reported again after {seconds:.2f} s"
            step.result(f"pid {before.pid} was killed; pid {after.pid} runs, is ready and reported {seconds:.2f} s later")
            step.result(f"why, in the agent's words: {self._last_decision(client)}")

    def _link(self, client: Client) -> None:
        token = client.tokens.create("quickstart-page", "reader", 86_400)
        self.told["page"] = f"{client.info().url}/login?token={token.secret}"

    def _module(self, client: Client) -> ModuleStatus:
        reported = client.devices.get(DEVICE).reported
        if reported is None or MODULE not in reported.modules:
            return ModuleStatus(state="pending", reason="not reported yet")
        return reported.modules[MODULE]

    def _last_decision(self, client: Client) -> str:
        reported = client.devices.get(DEVICE).reported
        starts = [d.reason for d in reported.decisions if d.module == MODULE and d.action == "start"] if reported else []
        return starts[-1] if starts else "none was reported"

    def _running(self, client: Client, other_than: int | None = None) -> ModuleStatus | None:
        module = self._module(client)
        return module if module.state == "running" and module.address and module.pid != other_than else None


def find_shuttle_data() -> Path:
    """The data file inside the wheel that ships it; that package itself is not imported."""
    spec = importlib.util.find_spec("river")
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root, "datasets", "shuttle.csv.gz")
        if path.is_file():
            return path
    raise ExampleDataMissing


def _post(url: str, body: dict[str, object]) -> Any:  # noqa: ANN401 - decoded JSON
    response = httpx.post(url, json=body, timeout=30)
    response.raise_for_status()
    return response.json()


def _shortened(text: str, most: int) -> str:
    """``text`` in at most so many characters; an ellipsis says that something is missing."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
