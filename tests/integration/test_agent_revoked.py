"""A revoked device and its operator: the agent says so, its modules run on, its telemetry waits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from registry.store import fleet
from tests.agent_builders import Workspace
from tests.agent_process import AgentProcess
from tests.edge_place import DeviceFile
from tests.fixtures.brokers import MosquittoFactory
from tests.fixtures.parts import search_path
from tests.hub_parts import HubPlace, hub_place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[HubPlace]:
    with hub_place(tmp_path / "hub") as made:
        yield made


def look(agent: AgentProcess, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "edge_agent", command, "--config", str(agent.config), *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env={"PATH": search_path()})


def link_of(agent: AgentProcess) -> tuple[str, str]:
    report = agent.report()
    return ("", "") if report is None or report.link is None else (report.link.state, report.link.reason)


def check(agent: AgentProcess) -> dict[str, Any]:
    rows = json.loads(look(agent, "check", "--json").stdout)
    return next(dict(row) for row in rows if row["name"] == "session")


def test_a_revoked_device_says_so(place: HubPlace, tmp_path: Path) -> None:
    with AgentProcess(DeviceFile(place, "pump"), tmp_path / "device") as agent:
        agent.process.wait_until(lambda: link_of(agent)[0] == "session", timeout_s=60, what="a session")
        assert "link: in session with the hub" in look(agent, "status").stdout
        assert check(agent)["ok"]
        with place.database.write() as connection:
            fleet.revoke(connection, "pump", datetime.now(UTC))
        agent.stop()
        agent.start()
        agent.process.wait_until(lambda: link_of(agent)[0] == "revoked", timeout_s=60, what="the agent knowing")
        assert "this device was revoked: nothing is taken" in look(agent, "status").stdout
        failed = check(agent)
        assert not failed["ok"]
        assert "hedgerow device delete" in failed["remedy"]
        assert "this device was revoked" in look(agent, "events").stdout
        assert "hedgerow_agent_revoked 1" in agent.get("/metrics")[1]


def test_a_login_that_the_broker_refuses_is_told_in_words(mosquitto: MosquittoFactory, tmp_path: Path) -> None:
    with mosquitto(users={"hub": "secret"}) as broker:
        device = Workspace(broker_url=f"mqtt://porch:wrong@127.0.0.1:{broker.port}")
        with AgentProcess(device, tmp_path / "device") as agent:
            agent.process.wait_until(lambda: "refused" in link_of(agent)[1], timeout_s=60, what="the broker's refusal")
            state, reason = link_of(agent)
            assert state == "offline"
            assert "was this device revoked or deleted?" in reason
            assert "was this device revoked or deleted?" in look(agent, "status").stdout
            assert check(agent)["warning"]
