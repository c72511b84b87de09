"""``hedgerow up --mosquitto-mtls``: what its roles are told, and what cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.up.__main__ import banner, main
from registry.up.roles import UpSettings, plan_roles, role_environment

RUN = Path("/srv/w/run")
BOTH = UpSettings(
    workspace=Path("/srv/w"), mosquitto="0.0.0.0:8883", mosquitto_mtls="0.0.0.0:8884", mosquitto_names="plant.example"
)


def test_new_devices_are_sent_to_where_certificates_are_taken() -> None:
    environment = role_environment(BOTH)
    assert environment["HEDGEROW_DEVICE_BROKER_URL"] == "mqtts://plant.example:8884"
    assert environment["HEDGEROW_DEVICE_CERTIFICATES"] == "true"
    assert environment["HEDGEROW_BROKER_LOGIN"] == "own"
    argv = plan_roles(BOTH, RUN)[0].argv
    assert argv[argv.index("--listen") + 1] == "0.0.0.0:8883"
    assert argv[argv.index("--mtls") + 1] == "0.0.0.0:8884"
    assert "mqtts://plant.example:8884 (Mosquitto)" in banner(BOTH, 1.0)


def test_passwords_need_not_be_taken_at_all() -> None:
    only = UpSettings(workspace=Path("/srv/w"), mosquitto_mtls="127.0.0.1:8884")
    broker = plan_roles(only, RUN)[0]
    assert "registry.mosquitto" in broker.argv
    assert broker.argv[broker.argv.index("--listen") + 1] == ""
    assert role_environment(only)["HEDGEROW_DEVICE_BROKER_URL"] == "mqtts://127.0.0.1:8884"


def test_without_it_nothing_is_said_of_certificates() -> None:
    before = UpSettings(workspace=Path("/srv/w"), mosquitto="0.0.0.0:8883")
    assert "HEDGEROW_DEVICE_CERTIFICATES" not in role_environment(before)
    assert "--mtls" not in plan_roles(before, RUN)[0].argv


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--mosquitto-mtls", "plant.example"], "Correct --mosquitto-mtls."),
        (["--mosquitto-mtls", "127.0.0.1:8884", "--broker", "mqtts://plant.example"], "--broker"),
        (["--mosquitto-mtls", "127.0.0.1:8884", "--mosquitto", "127.0.0.1:8884"], "Correct --mosquitto-mtls."),
    ],
)
def test_options_that_cannot_hold_are_refused(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--workspace", str(tmp_path / "w")]) == 2
    assert told in capsys.readouterr().err
