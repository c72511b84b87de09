"""Properties of messages from a module to whoever reads them: device, hub, REST API, command line."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.telemetry import TelemetryBatch, TelemetryMessage, chain_over
from registry.hub.ingest import BatchUplink, store_batches
from registry.store import fleet, telemetry
from tests.agent_process import AgentProcess
from tests.edge_place import DeviceFile
from tests.fixtures.parts import search_path
from tests.hub_parts import hub_place
from tests.registry_app import running_app
from tests.registry_server import RunningServer
from tests.registry_stores import BACKENDS, ready_database
from tests.waiting import wait_for

TOP = Path(__file__).parents[2]
ODD = {"site": "north", "ümlaut": '"quoted"\n', "nul": "\0", "escape": "\x1b[31m"}
# A module that sends one message with properties and one without.
SENDER = """
import os, time, urllib.request
url = os.environ["HEDGEROW_TELEMETRY_URL"]
for address, more in ((url + "?output=alerts&properties=line%3D7", {"iothub-app-Site": "north"}), (url, {})):
    headers = {"authorization": "Bearer " + os.environ["HEDGEROW_TELEMETRY_TOKEN"], "content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(address, b"1", {**headers, **more}), timeout=20).close()
time.sleep(1000)
"""


def batch(device_uuid: str, *properties: dict[str, str]) -> BatchUplink:
    messages = [
        TelemetryMessage(sequence=number, time_ms=1, module="m", body=str(number), properties=each)
        for number, each in enumerate(properties, 1)
    ]
    return BatchUplink(
        TelemetryBatch(
            device_uuid=device_uuid,
            session="s",
            epoch="e",
            stream="telemetry",
            first_sequence=1,
            previous_chain="0" * 64,
            chain=chain_over("0" * 64, messages),
            messages=messages,
        ),
        b"",
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_databases_keep_them(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgres_tables_url") if backend == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as database:
        with database.write_series() as connection:
            store_batches(connection, [batch("d1", ODD, {})], 7)
        with database.read_series() as connection:
            rows = telemetry.after(connection, 10, 0)
    assert [telemetry.properties_of(row) for row in rows] == [ODD, {}]
    assert rows[1].properties is None


def test_a_module_s_properties_reach_the_hub(tmp_path: Path) -> None:
    with hub_place(tmp_path / "hub") as place, AgentProcess(DeviceFile(place, "pump"), tmp_path / "device"):
        modules = {"sender": ModuleSpec(command=[sys.executable, "-c", SENDER])}
        place.deploy(EdgeDeployment(name="sending", target="*", modules=modules))

        def found() -> list[dict[str, str]]:
            with place.database.read_series() as connection:
                return [telemetry.properties_of(row) for row in telemetry.after(connection, 10, 0)]

        wait_for(lambda: len(found()) >= 2, timeout_s=60, what="two messages")
        assert found() == [{"Site": "north", "line": "7", "$.on": "alerts"}, {}]


def test_the_api_answers_with_them(tmp_path: Path) -> None:
    with running_app(tmp_path / "workspace") as app:
        with app.here.database.write() as connection:
            uuid = fleet.enroll(connection, EnrollDevice(name="pump"), datetime.now(UTC)).uuid
        with app.here.database.write_series() as connection:
            store_batches(connection, [batch(uuid, ODD, {})], 7)
        items = app.asker("reader").done("GET", "/api/v1/telemetry")["items"]
    assert [item["properties"] for item in items] == [ODD, {}]


def test_the_command_line_shows_them(server: RunningServer, tmp_path: Path) -> None:
    from registry.store.database import open_database

    database = open_database(None, server.workspace)
    with database.write() as connection:
        uuid = fleet.enroll(connection, EnrollDevice(name="pump"), datetime.now(UTC)).uuid
    with database.write_series() as connection:
        store_batches(connection, [batch(uuid, ODD, {})], 7)
    database.close()
    first, second = tail(server, tmp_path).splitlines()
    shown = r"""escape="\u001b[31m"  nul="\u0000"  site=north  ümlaut="\"quoted\"\n" """.strip()
    assert first.partition("pump/m")[2] == f"  1  {shown}"
    assert "\x1b" not in first
    assert second.endswith("pump/m  2")
    told = [json.loads(line)["properties"] for line in tail(server, tmp_path, "--json").splitlines()]
    assert told == [ODD, {}]


def tail(server: RunningServer, folder: Path, *options: str) -> str:
    program = "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"
    argv = [sys.executable, "-c", program, "telemetry", "tail", *options]
    env = {
        "PATH": search_path(),
        "HOME": str(folder),
        "PYTHONPATH": str(TOP),
        "HEDGEROW_WORKSPACE": str(server.workspace),
        "PYTHONIOENCODING": "utf-8",
    }
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout
