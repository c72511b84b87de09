"""What modules reported survives kills of both ends, a hub that goes back in time, and two agents on copies of one card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent.telemetry.tokens import Tokens
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from registry.store import facts, module_twins
from registry.store.module_twins import NOTHING, ModuleRow
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.edge_place import DeviceFile
from tests.hub_parts import HubPlace, hub_place


class Place:
    """A hub, and an agent whose module "m" is wanted and does not run: the tests report in its name."""

    def __init__(self, hub: HubPlace, agent: AgentProcess, device: DeviceFile) -> None:
        self.hub, self.agent, self.device = hub, agent, device
        self.token = Tokens(device.config.key_bytes()).of("m")
        hub.deploy(EdgeDeployment(name="d", target="*", modules={"m": ModuleSpec(command=["x"], status="stopped")}))
        wait_for_or_show(agent, lambda: agent.module("m"), 60, "the desired state")

    def report(self, properties: dict[str, Any], agent: AgentProcess | None = None) -> int:
        """The version that is on the disk."""
        headers = {"authorization": f"Bearer {self.token}"}
        status, text = (agent or self.agent)._request("PUT", "/twin/reported", json.dumps(properties), headers)
        assert status == 200, text
        return int(json.loads(text)["version"])

    def row(self) -> ModuleRow:
        with self.hub.database.read() as connection:
            return module_twins.of_device(connection, self.device.uuid).get("m", NOTHING)

    def wait_for(self, properties: dict[str, Any], what: str, agent: AgentProcess | None = None) -> ModuleRow:
        def look() -> ModuleRow | None:
            row = self.row()
            return row if row.reported == properties else None

        found = wait_for_or_show(agent or self.agent, look, 120, what)
        assert found is not None
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with hub_place(tmp_path / "hub") as hub:
        device = DeviceFile(hub, "pump")
        with AgentProcess(device, tmp_path / "device") as agent:
            yield Place(hub, agent, device)


@pytest.mark.timeout(400)
def test_kills_between_report_and_ack_and_a_restored_hub_lose_nothing(place: Place) -> None:
    assert place.hub.hub is not None
    first = place.report({"n": 1})
    epoch = place.wait_for({"n": 1}, "the first report").epoch

    place.hub.hub.kill()
    second = place.report({"n": 2})
    place.agent.kill()
    place.agent.start()
    place.hub.start_hub()
    row = place.wait_for({"n": 2}, "what was reported while the hub was away")
    assert (first, second, row.reported_version, row.epoch) == (1, 2, 2, epoch)

    place.report({"n": 3, "old": True})
    place.wait_for({"n": 3, "old": True}, "the report before the backup is restored")
    place.hub.hub.kill()
    with place.hub.database.write() as connection:
        facts.renew_incarnation(connection)
        module_twins.put_reported(
            connection, (place.device.uuid, "m"), epoch=epoch, version=1, reported={"n": 1}, now=datetime.now(UTC)
        )
    place.hub.start_hub()
    place.report({"n": 4, "old": True})  # a patch would be of version 3, which this hub does not have
    assert place.wait_for({"n": 4, "old": True}, "what the restored hub lacks").reported_version == 4
    assert "Traceback" not in place.hub.hub.log_text()


@pytest.mark.timeout(400)
def test_two_agents_on_copies_of_one_card_are_told_apart(place: Place, tmp_path: Path) -> None:
    place.report({"n": 1})
    epoch = place.wait_for({"n": 1}, "the first report").epoch
    place.agent.stop()
    (tmp_path / "copy").mkdir()
    shutil.copytree(place.agent.state, tmp_path / "copy" / "state")
    with AgentProcess(place.device, tmp_path / "copy") as copy:
        place.report({"of": "the copy"}, copy)
        place.wait_for({"of": "the copy"}, "the copy's report", copy)
        assert place.row().epoch == epoch
    for _ in range(2):  # started more often than the copy, it gets the session at once
        place.agent.stop()
        place.agent.start()
    assert place.report({"of": "the card"}) == 2
    row = place.wait_for({"of": "the card"}, "the report of the card itself")
    assert row.epoch != epoch
