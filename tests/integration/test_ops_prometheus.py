"""What ``ops/`` ships for Prometheus and Grafana: every rule and query, asked of a real Prometheus that reads a real fleet."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hedgerow.clock import unix_ms
from hedgerow.contracts.api_fleet import EnrolledDevice
from hedgerow.contracts.document import decode
from hedgerow.contracts.status import BufferStatus, DesiredOutcome, ModuleStatus, StatusReport
from hedgerow.contracts.telemetry import TelemetryMessage
from registry.store import telemetry, twins
from registry.store.database import open_database
from registry.store.telemetry import Arrived, GapRow, Mark, StreamKey
from tests.fixtures.parts import program
from tests.fixtures.real_process import RealProcess
from tests.registry_server import Api, RunningServer
from tests.waiting import free_port, wait_for

OPS = Path(__file__).parents[2] / "ops"
RULES = OPS / "prometheus" / "hedgerow-rules.yml"
DASHBOARDS = sorted((OPS / "grafana").glob("*.json"))


def enroll(api: Api, name: str) -> str:
    return decode(api.post("/api/v1/devices", json={"name": name}).content, EnrolledDevice).device.uuid


@pytest.fixture(scope="module")
def fleet(server: RunningServer) -> RunningServer:
    """One device with a module in trouble, a queue, telemetry and a gap; one last heard an hour ago. A paused rollout."""
    now = datetime.now(UTC)
    with server.client() as api:
        busy, away = enroll(api, "press-1"), enroll(api, "press-2")
        line = {"name": "line", "target": "*", "modules": {}, "rollout": {"groups": [{"percent": 10}]}}
        assert api.put("/api/v1/edge-deployments/line", json=line).status_code == 200
        assert api.post("/api/v1/edge-deployments/line/rollout", json={"action": "pause"}).status_code == 200
    report = StatusReport(
        device_uuid=busy,
        session="s",
        sequence=1,
        reported_at=now,
        agent_version="test",
        boot_id="b",
        desired=DesiredOutcome(version=1, code=500, message="camera is backoff"),
        modules={
            "camera": ModuleStatus(state="backoff", reason="exit code 3"),
            "scorer": ModuleStatus(state="running", reason=""),
        },
        buffer=BufferStatus(epoch="e", queued_messages=20_000, queued_bytes=10, dropped_messages=0),
    )
    database = open_database(None, server.workspace)
    with database.write() as connection:
        twins.put_session(connection, busy, twins.Session("s", "a", 1, now + timedelta(hours=1)))
        twins.put_report(connection, report, now)
        long_ago = datetime.fromtimestamp(now.timestamp() - 3600, UTC)
        quiet = StatusReport(
            device_uuid=away, session="t", sequence=1, reported_at=long_ago, agent_version="", boot_id="",
            desired=DesiredOutcome(version=1, code=200, message=""), modules={},
        )  # fmt: skip
        twins.put_session(connection, away, twins.Session("t", "a", 1, long_ago))
        twins.put_report(connection, quiet, long_ago)
    key = StreamKey(busy, "e", "telemetry")
    with database.write_series() as connection:
        message = TelemetryMessage(sequence=1, time_ms=unix_ms(now), module="scorer", body='{"load": 0.5}')
        telemetry.add_messages(connection, [Arrived(key, message)], unix_ms(now))
        telemetry.add_gaps(connection, [GapRow(key, 2, 4, "quota")], unix_ms(now))
        telemetry.put_marks(connection, {key: Mark(4, "0" * 64)}, unix_ms(now))
    database.close()
    return server


@pytest.fixture(scope="module")
def prometheus(fleet: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus with the shipped configuration, but for the address it reads and how often."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [fleet.url.partition("://")[2]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / RULES.name).write_bytes(RULES.read_bytes())
    (folder / "hedgerow.token").write_text((fleet.workspace / "run" / "owner.token").read_text())
    port = free_port()
    argv = [
        program("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    process = RealProcess(argv, log=folder / "log").start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        try:
            process.wait_until(lambda: _answers(client), timeout_s=60, what="Prometheus")
            # Rates need two looks at the page.
            wait_for(lambda: _value(client, "count_over_time(up[1m])") >= 3, timeout_s=60, what="three scrapes")
            assert _value(client, 'up{job="hedgerow"}') == 1
            yield client
        finally:
            process.stop()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def _ask(client: httpx.Client, query: str) -> list[Any]:
    answered = client.get("/api/v1/query", params={"query": query}).json()
    assert answered["status"] == "success", f"{query}: {answered.get('error')}"
    found: list[Any] = answered["data"]["result"]
    return found


def _value(client: httpx.Client, query: str) -> float:
    found = _ask(client, query)
    return float(found[0]["value"][1]) if found else 0.0


def _queries_of(dashboard: Path) -> list[str]:
    panels = json.loads(dashboard.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_promtool_accepts_the_rules() -> None:
    for command in (
        ["check", "rules", str(RULES)],
        ["check", "config", "--syntax-only", str(OPS / "prometheus" / "prometheus.yml")],
    ):
        ended = subprocess.run([program("promtool"), *command], capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_has_an_answer(prometheus: httpx.Client, dashboard: Path) -> None:
    for query in _queries_of(dashboard):
        asked = re.sub(r"\$\w+", ".*", query)
        assert _ask(prometheus, asked), f"{query} has no answer"


def test_what_alerts_look_at_is_there(prometheus: httpx.Client) -> None:
    """The rules' conditions themselves: those of a state that this fleet is in are true, the others are not."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}
    met = {name for name, query in rules.items() if _ask(prometheus, query)}
    assert met == {"HedgerowDeviceSilent", "HedgerowModuleDown", "HedgerowDesiredStateRefused", "HedgerowRolloutStopped"}
    (silent,) = _ask(prometheus, rules["HedgerowDeviceSilent"])
    assert silent["metric"]["device"] == "press-2"


def test_every_metric_that_is_asked_for_is_one_of_ours(prometheus: httpx.Client, fleet: RunningServer) -> None:
    with fleet.client() as api:
        page = api.get("/metrics").text
    texts = [RULES.read_text(), *(path.read_text() for path in DASHBOARDS)]
    asked = {name for text in texts for name in re.findall(r"\bhedgerow_\w+", text)}
    known = set(re.findall(r"^(hedgerow_\w+)[{ ]", page, re.MULTILINE))
    assert asked <= known | {"hedgerow_token"}
