"""The point of a backup: restored elsewhere, devices go on or say what is lost, and services answer as before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hedgerow.contracts.device import DeviceConfig, to_toml
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.sdk.client import Client
from registry.store import telemetry
from registry.store.database import open_database
from registry.store.telemetry import GapRow, StreamKey
from tests.agent_process import AgentProcess
from tests.backup_builders import bring_back
from tests.fixtures.control_plane import ControlPlane
from tests.scoring_models import iris, iris_rows
from tests.waiting import free_port, wait_for

# A module that reports a growing number: fast up to HURRY, then slowly; PADDING makes its messages as large as a test likes.
COUNTER = """
import json, os, time, urllib.request
n = 0
while True:
    n += 1
    request = urllib.request.Request(
        os.environ["HEDGEROW_TELEMETRY_URL"],
        json.dumps({"n": n, "padding": "x" * PADDING}).encode(),
        {"authorization": "Bearer " + os.environ["HEDGEROW_TELEMETRY_TOKEN"], "content-type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()
    time.sleep(0.01 if n < HURRY else 0.5)
"""
FOREVER = 10**9


class Machines:
    """Two machines with the same address: what is restored on the second is found under the ports of the first."""

    def __init__(self, folder: Path) -> None:
        self.ports = [w for name in ("--port", "--broker-port", "--balancer-port") for w in (name, str(free_port()))]
        for name in ("first", "second"):
            (folder / name).mkdir()
        self.first, self.second = (ControlPlane(folder / name, *self.ports) for name in ("first", "second"))
        self.backup = folder / "backup.tar"
        self.restored = 0

    def move(self) -> str:
        """Stop the first, restore on the second, start that; returns the new incarnation."""
        self.first.process.stop(grace_s=30)
        report = bring_back(self.backup, self.second.workspace)
        # Before it runs: devices send again what it lacks as soon as it does.
        self.restored = len(bodies(self.second))
        self.second.start()
        return report.incarnation


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    try:
        made.first.start()
        yield made
    finally:
        made.first.end()
        made.second.end()


class Enrolled:
    """What the agent's fixture wants: a device.toml."""

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config

    def write_toml(self, path: Path) -> Path:
        path.write_text(to_toml(self.config))
        path.chmod(0o600)
        return path


@contextmanager
def pump(client: Client, folder: Path, *, padding: int = 1, hurry: int = FOREVER, **environment: str) -> Iterator[AgentProcess]:
    """An enrolled device whose one module counts."""
    enrolled = Enrolled(client.devices.enroll("pump").config)
    command = [sys.executable, "-c", COUNTER.replace("PADDING", str(padding)).replace("HURRY", str(hurry))]
    modules = {"counter": ModuleSpec(command=command)}
    client.edge.deploy(EdgeDeployment(name="counting", target="deviceId = 'pump'", modules=modules))
    with AgentProcess(enrolled, folder / "device", env=environment) as agent:
        yield agent


def bodies(plane: ControlPlane) -> list[str]:
    database = open_database(None, plane.workspace)
    try:
        with database.read_series() as connection:
            return [row.body for row in telemetry.after(connection, 1_000_000, 0)]
    finally:
        database.close()


def sequences(plane: ControlPlane) -> tuple[list[int], list[GapRow]]:
    """All that was ever sent: the numbers of the messages in order, and what was recorded as lost."""
    database = open_database(None, plane.workspace)
    try:
        with database.read_series() as connection:
            rows, gaps = telemetry.after(connection, 1_000_000, 0), telemetry.recorded_gaps(connection, 1000)
    finally:
        database.close()
    assert len({(row.device_uuid, row.epoch, row.stream) for row in rows}) == 1
    found = [GapRow(StreamKey(g.device_uuid, g.epoch, g.stream), g.first_sequence, g.last_sequence, g.reason) for g in gaps]
    return sorted(row.sequence for row in rows), found


def more(plane: ControlPlane, than: int) -> int:
    return wait_for(lambda: (n := len(bodies(plane))) > than and n, timeout_s=60, what=f"more than {than} messages")


def test_devices_and_services_go_on_elsewhere(machines: Machines, tmp_path: Path) -> None:
    rows = iris_rows()[0][:3].tolist()
    with machines.first.client() as client:
        before = client.info()
        client.models.register("iris", iris())
        built = client.activities.wait(client.images.build("iris", ["iris:1"]).id)
        client.activities.wait(client.services.deploy("iris", built.result["image"]).id)
        scored = client.services.score("iris", {"data": rows})
        with pump(client, tmp_path) as agent:
            more(machines.first, 30)
            client.backups.save(machines.backup, keys=True)
            at_backup = len(bodies(machines.first))
            more(machines.first, at_backup + 40)  # acknowledged, and not in the backup
            incarnation = machines.move()

            assert 0 < machines.restored <= at_backup + 40
            more(machines.second, at_backup + 120)
            with machines.second.client() as second:
                after = second.info()
                assert (after.workspace_id, after.incarnation) == (before.workspace_id, incarnation)
                wait_for(lambda: second.devices.get("pump").online, timeout_s=30, what="the device being online")
                wait_for(
                    lambda: second.services.get("iris").deployments[0].state == "ready",
                    timeout_s=60,
                    what="the service being ready",
                )
                assert second.services.score("iris", {"data": rows}) == scored
                assert second.models.get("iris").digest == client_digest(machines)
                manifest = EdgeDeployment(name="counting", target="*", modules={})
                second.edge.deploy(manifest)
                wait_for(lambda: not second.devices.get("pump").reported.modules, timeout_s=60, what="new orders being obeyed")  # type: ignore[union-attr]  # it was online
            assert "Traceback" not in agent.log_text()
    machines.second.process.stop(grace_s=30)
    numbers, gaps = sequences(machines.second)
    assert numbers == list(range(1, len(numbers) + 1))
    assert gaps == []


def is_ready(client: Client, endpoint: str) -> bool:
    return all(deployment.state == "ready" for deployment in client.services.get(endpoint).deployments)


def client_digest(machines: Machines) -> str:
    database = open_database(None, machines.first.workspace)
    try:
        with database.read() as connection:
            return str(connection.exec_driver_sql("SELECT digest FROM model_versions").scalar_one())
    finally:
        database.close()


def test_what_a_device_no_longer_keeps_is_a_gap(machines: Machines, tmp_path: Path) -> None:
    with (
        machines.first.client() as client,
        pump(client, tmp_path, padding=2000, hurry=800, HEDGEROW_AGENT_QUOTA_BYTES="600000"),
    ):
        more(machines.first, 10)
        client.backups.save(machines.backup, keys=True)
        more(machines.first, 800)  # 1.6 MB, of which the device keeps the last third
        machines.move()
        more(machines.second, 100)
        wait_for(lambda: sequences(machines.second)[0][-1] > 810, timeout_s=60, what="news of the device")
    machines.second.process.stop(grace_s=30)
    numbers, gaps = sequences(machines.second)
    # A machine under load may let the buffer overflow before its hub has taken what is in it: that is said, too.
    assert {"hub-restored"} <= {gap.reason for gap in gaps} <= {"hub-restored", "quota"}
    lost = [number for gap in gaps for number in range(gap.first_sequence, gap.last_sequence + 1)]
    assert lost
    assert sorted(numbers + lost) == list(range(1, len(numbers) + len(lost) + 1))
