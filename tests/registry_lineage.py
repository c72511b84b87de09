"""A small world for lineage: data and a commit, runs, models, an environment, images, a service, two devices."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from hedgerow.contracts.api import CreateEnvironment, DeployImage, LoggedMetric, LogToRun, SubmitRun
from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredModule, DesiredState, EdgeDeployment, ModuleSpec
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.model import DataRef, ModelManifest, SourceCommit
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.signed import sign
from hedgerow.contracts.status import DesiredOutcome, ModuleStatus, StatusReport
from hedgerow.contracts.work import Run
from registry.store import edge_deployments, environments, fleet, leases, runs, services, twins
from registry.store.leases import Lease
from tests.registry_stores import NOW, add_image, add_model, after, digest_of_text, known_file

COMMIT, OTHER_COMMIT = "4f1c2a9" + "0" * 33, "4f1c2a9" + "1" * 33
READINGS, LABELS = digest_of_text("readings"), digest_of_text("labels")


@dataclass(frozen=True)
class World:
    """``scorer`` runs on press-1 (with ``other`` beside it) and press-2 and behind the endpoint ``shuttle``."""

    run: Run
    model: ModelManifest
    other_model: ModelManifest
    image: ImageRecord
    other_image: ImageRecord
    device_uuid: str


def submit_run(connection: Connection, *data: DataRef, commit: str = COMMIT) -> Run:
    """A run that logged one metric and one parameter."""
    script = known_file(connection, "train.py", "print(1)")
    source = SourceCommit(commit=commit, repository="https://git.example/shuttle", branch="main", dirty=True)
    run = runs.submit(
        connection,
        SubmitRun(experiment="shuttle", script="train.py", snapshot=[script], source=source, data=list(data)),
        NOW,
    )
    entry = LogToRun(metrics=[LoggedMetric(name="auc", value=0.998)], parameters={"depth": "7"})
    return runs.log(connection, run.id, entry)


def build_world(connection: Connection) -> World:
    """Everything committed with the caller's transaction."""
    run = submit_run(connection, DataRef(name="readings", digest=READINGS))
    model = add_model(connection, "shuttle", run_id=run.id)
    labels = [DataRef(name="labels", digest=LABELS)]
    other_model = add_model(connection, "other", data=labels, source=SourceCommit(commit=OTHER_COMMIT))
    environment = environments.create(connection, CreateEnvironment(name="py", requirements=["numpy"]), NOW).environment
    image = add_image(connection, "scorer", model, manifest="{1}", environment=f"{environment.name}:{environment.version}")
    other_image = add_image(connection, "other", other_model, manifest="{2}")
    services.deploy(connection, "shuttle", "blue", DeployImage(image="scorer:1"), NOW)
    modules = {"scorer": ModuleSpec(image="scorer:1"), "other": ModuleSpec(image="other:1")}
    edge_deployments.put(connection, EdgeDeployment(name="presses", target="*", modules=modules), NOW)
    lease = leases.acquire(connection, "hub", "test", 60.0, NOW)
    assert lease is not None
    uuid = add_device(connection, lease, "press-1", modules, {"scorer": image, "other": other_image})
    add_device(connection, lease, "press-2", modules, {"scorer": image})
    return World(run, model, other_model, image, other_image, uuid)


def add_device(
    connection: Connection, lease: Lease, name: str, specs: dict[str, ModuleSpec], found: dict[str, ImageRecord]
) -> str:
    """An enrolled device that should run these modules and says that it does; it is online."""
    device = fleet.enroll(connection, EnrollDevice(name=name), NOW)
    pins = {m: ImagePin(name=i.name, version=i.version, digest=i.digest, kind=i.kind) for m, i in found.items()}
    state = DesiredState(
        device_uuid=device.uuid,
        version=1,
        incarnation="i",
        issued_at=NOW,
        edge_deployment="presses",
        modules={module: DesiredModule(spec=specs[module], image=pin) for module, pin in pins.items()},
    )
    envelope = sign(PAYLOAD_DESIRED_STATE, encode(state), {"k": lambda message: message[:4]})
    twins.put_desired(connection, lease, state, 1, envelope)
    status = {m: ModuleStatus(state="running", reason="well", image_digest=p.digest) for m, p in pins.items()}
    report = StatusReport(
        device_uuid=device.uuid,
        session="s",
        sequence=1,
        reported_at=NOW,
        agent_version="1",
        boot_id="b",
        desired=DesiredOutcome(version=1, code=200, message="applied"),
        modules=status,
    )
    twins.put_report(connection, report, NOW)
    twins.put_session(connection, device.uuid, twins.Session("s", "i", 1, after(600)))
    return device.uuid


def without_times(facts: dict[str, str]) -> dict[str, str]:
    """Facts that do not depend on when the test ran."""
    return {name: value for name, value in msgspec.to_builtins(facts).items() if not name.endswith("_at")}
