"""``hedgerow-fleet-sim`` on a real control plane: devices come, speak, reconnect and go; nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hedgerow.sdk.client import Client
from loadtests.fleet_sim.__main__ import main
from tests.fixtures.brokers import MosquittoFactory
from tests.fixtures.control_plane import ControlPlane
from tests.waiting import free_port


@pytest.mark.timeout(300)
def test_a_small_fleet_with_churn(control_plane: ControlPlane, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--devices", "40", "--rate", "2", "--duration", "4", "--churn", "3", "--prefix", "herd", "--json"]
    code = main([*options, "--workspace", str(control_plane.workspace)])
    figures = json.loads(capsys.readouterr().out)
    assert (code, figures["lost"], figures["contradictions"]) == (0, 0, 0)
    assert figures["made"] == figures["acknowledged"] > 40
    assert figures["reconnects"] > 0
    assert figures["hellos"] >= 40
    assert [device.name for device in client.devices.iterate(name="herd-*")] == []
    stored = [message for message in client.telemetry.iterate() if message.module == "sensor"]
    assert len(stored) == figures["made"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("option", ["--mosquitto", "--mosquitto-mtls"])
def test_a_small_fleet_where_devices_log_in(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    plane = ControlPlane(tmp_path, option, f"127.0.0.1:{free_port()}", "--mosquitto-names", "localhost")
    try:
        plane.start()
        code = main(["--devices", "3", "--rate", "5", "--duration", "1", "--json", "--workspace", str(plane.workspace)])
    finally:
        plane.end()
    told = capsys.readouterr()
    if option == "--mosquitto":
        assert (code, json.loads(told.out)["lost"]) == (0, 0)
    else:
        assert (code, "have no certificates" in told.err) == (1, True)


def test_wrong_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--devices", "0"]) == 2
    assert "above 0" in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_a_small_fleet_on_two_hubs(
    tmp_path: Path, mosquitto: MosquittoFactory, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with mosquitto() as broker:
        plane = ControlPlane(tmp_path, "--database", postgres_url, "--hubs", "2", "--broker", broker.url)
        try:
            plane.start()
            assert (plane.workspace / "run" / "hub.ready").exists()
            assert (plane.workspace / "run" / "hub-2.ready").exists()
            options = ["--devices", "20", "--rate", "5", "--duration", "3", "--json"]
            code = main([*options, "--workspace", str(plane.workspace)])
        finally:
            plane.end()
    figures = json.loads(capsys.readouterr().out)
    assert (code, figures["lost"], figures["contradictions"]) == (0, 0, 0)
    assert figures["acknowledged"] > 40
