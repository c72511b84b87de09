"""A workspace in which something of every kind is going on, for pages and lists."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection

from hedgerow.contracts.api import DeployImage, LoggedMetric, LogToRun, SubmitRun
from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.api_images import BuildImage
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredModule, DesiredState, EdgeDeployment, ModuleSpec
from hedgerow.contracts.image import Verification
from hedgerow.contracts.model import TensorSpec
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.rollout import RolloutGroup, RolloutGroupStatus, RolloutPolicy
from hedgerow.contracts.service import DeploymentSettings, ImagePin, ReplicaStatus
from hedgerow.contracts.signed import sign
from hedgerow.contracts.status import BufferStatus, Decision, DesiredOutcome, ModuleStatus, StatusReport
from hedgerow.contracts.telemetry import TelemetryMessage
from hedgerow.contracts.work import Problem
from registry.store import activities, edge_deployments, fleet, leases, rollouts, runs, services, telemetry, twins
from registry.store.database import Database
from registry.store.leases import Lease
from registry.store.tables import image_versions
from registry.store.telemetry import Arrived, StreamKey
from tests.registry_stores import add_image, add_model, known_file

HOSTILE = "<script>alert(1)</script>\"'&"


class Everything:
    """Fills an empty workspace; ``now`` is when it looks as if things had happened."""

    def __init__(self, database: Database, now: datetime) -> None:
        self.database = database
        self.now = now
        with database.write() as connection:
            lease = leases.acquire(connection, "controller", "test", 10**6, now)
        assert lease is not None
        self.lease: Lease = lease
        self.run_id = self._train()
        self._package()
        self._serve()
        self.device_uuid = self._at_the_edge()
        self._send_telemetry()

    def ago(self, **span: float) -> datetime:
        return self.now - timedelta(**span)

    def _train(self) -> str:
        with self.database.write() as connection:
            wanted = SubmitRun(
                experiment="shuttle",
                script="train.py",
                arguments=["--trees", "200"],
                snapshot=[known_file(connection, "train.py", "print('training')")],
            )
            run = runs.submit(connection, wanted, self.ago(hours=3))
            runs.start(connection, self.lease, run.id, self.ago(hours=3))
            points = [LoggedMetric(name="auc", value=1 - math.exp(-step / 9), step=step) for step in range(40)]
            points += [LoggedMetric(name="loss", value=math.exp(-step / 7), step=step) for step in range(40)]
            entry = LogToRun(metrics=points, parameters={"trees": "200", "note": HOSTILE})
            runs.log(connection, run.id, entry)
            runs.finish(connection, self.lease, run.id, state="succeeded", now=self.ago(hours=2, minutes=58), exit_code=0)
        with self.database.write_series() as connection:
            runs.add_points(connection, run.id, entry, 0)
        return run.id

    def _package(self) -> None:
        with self.database.write() as connection:
            facts = {
                "framework": "onnx",
                "description": "Isolation forest on the Shuttle data",
                "tags": {"stage": "prod", "site": "north"},
                "run_id": self.run_id,
                "inputs": [TensorSpec(name="x", datatype="FP32", shape=[-1, 9])],
                "outputs": [TensorSpec(name="score", datatype="FP32", shape=[-1, 1])],
            }
            add_model(connection, "shuttle-anomaly", now=self.ago(hours=2, minutes=50), **facts)
            self.model = add_model(connection, "shuttle-anomaly", now=self.ago(hours=1), **facts)
            add_model(connection, "pump-vibration", now=self.ago(minutes=50), description=HOSTILE, tags={"a": HOSTILE})
            self.image = add_image(connection, "shuttle-image", self.model, now=self.ago(minutes=40))
            proof = Verification(state="passed", reason="200 rows agree", rows=200, max_abs_error=2.4e-7, tolerance=1e-4)
            record = msgspec.structs.replace(self.image, size_bytes=1_734_567, verification=proof)
            connection.execute(image_versions.update().values(record=encode(record).decode()))
            for minutes in (40, 12):
                request = BuildImage(name="shuttle-image", models=["shuttle-anomaly:2"])
                activities.create(
                    connection, kind="image.build", subject="shuttle-image", request=request, now=self.ago(minutes=minutes)
                )
            self._work_off(connection, failed=False)
            self._work_off(connection, failed=True)

    def _work_off(self, connection: Connection, *, failed: bool) -> None:
        claimed = activities.claim(connection, self.lease, ["image.build"], self.ago(minutes=12))
        assert claimed is not None
        problem = Problem(code="out_of_space", message="No space left on device", remedy="Free some space.") if failed else None
        activity_id = claimed[0].id
        activities.report(connection, self.lease, activity_id, progress=0.4, step="packing layers", log="1 of 2", now=self.now)
        activities.finish(
            connection,
            self.lease,
            activity_id,
            state="failed" if failed else "succeeded",
            result={} if failed else {"image": "shuttle-image:1", "digest": self.image.digest},
            problem=problem,
            now=self.ago(minutes=11),
        )

    def _serve(self) -> None:
        with self.database.write() as connection:
            settings = DeploymentSettings(replicas=3)
            wanted = DeployImage(image="shuttle-image:1", settings=settings)
            services.deploy(connection, "shuttle", "blue", wanted, self.ago(minutes=30))
            services.deploy(connection, "shuttle", "green", wanted, self.ago(minutes=2))
            blue, green = services.get(connection, "shuttle").deployments
            up = [ReplicaStatus(name=f"r{i}", state="ready", address=f"127.0.0.1:400{i}", pid=4000 + i) for i in range(3)]
            services.report(connection, self.lease, blue, services.Progress("ready", "", tuple(up)))
            coming = (
                up[0],
                ReplicaStatus(name="r1", state="starting"),
                ReplicaStatus(name="r2", state="backoff", restarts=3, reason="exit code 1"),
            )
            services.report(connection, self.lease, green, services.Progress("degraded", "1 of 3 replicas is ready", coming))
            services.report_url(connection, self.lease, "shuttle", "http://127.0.0.1:8090/services/shuttle/score")

    def _roll_out(self, connection: Connection) -> None:
        """A layer whose first group is told, with a name that somebody thought up."""
        policy = RolloutPolicy(groups=[RolloutGroup(name=HOSTILE, percent=10)])
        layer = EdgeDeployment(name="belts", target="tags.belt = '1'", layered=True, modules={}, rollout=policy)
        edge_deployments.put(connection, layer, self.ago(minutes=3))
        rollout = rollouts.newest(connection, "belts", lock=True)
        assert rollout is not None
        told = RolloutGroupStatus(name=HOSTILE, state="running", began_at=self.ago(minutes=2))
        rollouts.write(connection, msgspec.structs.replace(rollout, groups=[told]))

    def _at_the_edge(self) -> str:
        with self.database.write() as connection:
            fleet.enroll(connection, EnrollDevice(name="press-9", tags={"site": "south"}), self.ago(days=9))
            device = fleet.enroll(connection, EnrollDevice(name="press-7", tags={"site": "north"}), self.ago(days=2))
            modules = {"scorer": ModuleSpec(image="shuttle-image:1"), "relay": ModuleSpec(command=["relay"])}
            manifest = EdgeDeployment(name="presses", target="tags.site = 'north'", modules=modules)
            edge_deployments.put(connection, manifest, self.ago(minutes=20))
            self._roll_out(connection)
            pin = ImagePin(name="shuttle-image", version=1, digest=self.image.digest, kind="onnx")
            state = DesiredState(
                device_uuid=device.uuid,
                version=4,
                incarnation="i",
                issued_at=self.ago(minutes=20),
                edge_deployment="presses",
                modules={
                    "scorer": DesiredModule(spec=modules["scorer"], image=pin),
                    "relay": DesiredModule(spec=modules["relay"]),
                },
            )
            envelope = sign(PAYLOAD_DESIRED_STATE, encode(state), {"k": lambda message: message[:4]})
            twins.put_desired(connection, self.lease, state, 1, envelope)
            twins.put_report(connection, self._report(device.uuid), self.ago(seconds=4))
            twins.put_session(connection, device.uuid, twins.Session("s", "i", 1, self.now + timedelta(minutes=10)))
        return device.uuid

    def _report(self, uuid: str) -> StatusReport:
        modules = {
            "scorer": ModuleStatus(state="running", reason="answers its probe", pid=77, started_at=self.ago(minutes=7)),
            "camera": ModuleStatus(state="backoff", reason="exit code 2; again in 8 s", restart_count=12),
        }
        return StatusReport(
            device_uuid=uuid,
            session="s",
            sequence=9,
            reported_at=self.ago(seconds=5),
            agent_version="0.1.0",
            boot_id="b",
            desired=DesiredOutcome(version=4, code=200, message="applied"),
            modules=modules,
            decisions=[Decision(at=self.ago(minutes=7), module="scorer", action="restart", reason="killed by signal 9")],
            buffer=BufferStatus(epoch="e", queued_messages=3, queued_bytes=2100, dropped_messages=0),
        )

    def _send_telemetry(self) -> None:
        at_ms = int(self.now.timestamp() * 1000)
        bodies = [f'{{"score": {0.1 * i:.2f}, "rows": 12}}' for i in range(9)] + [f'{{"note": "{HOSTILE}"}}', "x" * 3000]
        sent = [
            Arrived(
                StreamKey(self.device_uuid, "e", "default"),
                TelemetryMessage(sequence=i + 1, time_ms=at_ms - (20 - i) * 1000, module="scorer", body=body),
            )
            for i, body in enumerate(bodies)
        ]
        odd = TelemetryMessage(sequence=99, time_ms=2**60, module="scorer", body="{}")
        with self.database.write_series() as connection:
            telemetry.add_messages(connection, [*sent, Arrived(StreamKey(self.device_uuid, "e", "default"), odd)], at_ms)
