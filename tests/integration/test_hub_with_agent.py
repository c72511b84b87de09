"""The real agent at the other end of the protocol: deploy, run, telemetry, a killed hub, a restored hub, withdrawal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from hedgerow.contracts.api_fleet import Device
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.telemetry import CHAIN_START, TelemetryMessage, chain_over
from registry.store import edge_deployments, facts, fleet, telemetry
from registry.store.tables import messages, watermarks
from tests.agent_process import AgentProcess
from tests.edge_place import DeviceFile
from tests.hub_parts import HubPlace, hub_place
from tests.waiting import wait_for

# A module that reports a growing number for as long as it runs.
COUNTER = """
import json, os, time, urllib.request
n = 0
while True:
    n += 1
    request = urllib.request.Request(
        os.environ["HEDGEROW_TELEMETRY_URL"],
        json.dumps({"n": n, "label": "LABEL"}).encode(),
        {"authorization": "Bearer " + os.environ["HEDGEROW_TELEMETRY_TOKEN"], "content-type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()
    time.sleep(0.02)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[HubPlace]:
    with hub_place(tmp_path / "hub") as made:
        yield made


def counting(label: str) -> EdgeDeployment:
    command = [sys.executable, "-c", COUNTER.replace("LABEL", label)]
    return EdgeDeployment(name="counting", target="deviceId = 'pump'", modules={"counter": ModuleSpec(command=command)})


def device(place: HubPlace) -> Device:
    with place.database.read() as connection:
        return fleet.get(connection, "pump", datetime.now(UTC))


def bodies(place: HubPlace) -> list[str]:
    with place.database.read_series() as connection:
        return [row.body for row in telemetry.after(connection, 1_000_000, 0)]


def runs(place: HubPlace, version: int) -> bool:
    found = device(place)
    if found.reported is None or found.reported.desired.version != version:
        return False
    return found.online and "counter" in found.reported.modules and found.reported.modules["counter"].state == "running"


def more(place: HubPlace, than: int, containing: str = "") -> None:
    wait_for(lambda: sum(containing in body for body in bodies(place)) > than, timeout_s=30, what=f"more than {than} messages")


def nothing_is_missing(place: HubPlace) -> None:
    with place.database.read_series() as connection:
        rows = telemetry.after(connection, 1_000_000, 0)
        assert telemetry.recorded_gaps(connection, 10) == []
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
    assert len({row.epoch for row in rows}) == 1


def test_an_agent_through_everything(place: HubPlace, tmp_path: Path) -> None:
    with AgentProcess(DeviceFile(place, "pump"), tmp_path / "device") as agent:
        place.deploy(counting("first"))
        wait_for(lambda: runs(place, 1), timeout_s=30, what="the module being reported as running")
        more(place, 20)
        assert place.hub is not None
        place.hub.kill()
        agent.process.stop()
        agent.start()
        place.start_hub()
        more(place, len(bodies(place)) + 20)
        place.deploy(counting("second"))
        more(place, 10, containing="second")
        wait_for(lambda: runs(place, 2), timeout_s=30, what="the new version being reported")
        with place.database.write() as connection:
            edge_deployments.remove(connection, "counting")
        place.wake()
        wait_for(
            lambda: (found := device(place)).reported is not None and not found.reported.modules, timeout_s=30, what="no modules"
        )
        assert device(place).reported is not None
        nothing_is_missing(place)
        assert place.events() == ["enrolled"]


def test_a_restored_hub_is_believed_again(place: HubPlace, tmp_path: Path) -> None:
    """As after a restore: another incarnation, telemetry of the last hours gone, an older desired state."""
    with AgentProcess(DeviceFile(place, "pump"), tmp_path / "device"):
        place.deploy(counting("first"))
        more(place, 20)
        assert place.hub is not None
        place.hub.stop()
        total = len(bodies(place))
        forget_telemetry(place, after=5)
        with place.database.write() as connection:
            facts.renew_incarnation(connection)
        place.start_hub()
        more(place, total + 20)
        wait_for(lambda: runs(place, 2), timeout_s=40, what="the desired state of the new incarnation being accepted")
        nothing_is_missing(place)


def forget_telemetry(place: HubPlace, after: int) -> None:
    with place.database.write_series() as connection:
        kept = connection.execute(select(messages).where(messages.c.sequence <= after).order_by(messages.c.sequence)).all()
        chain = chain_over(
            CHAIN_START,
            (TelemetryMessage(sequence=row.sequence, time_ms=row.time_ms, module=row.module, body=row.body) for row in kept),
        )
        connection.execute(delete(messages).where(messages.c.sequence > after))
        connection.execute(update(watermarks).values(watermark=after, chain=chain))
