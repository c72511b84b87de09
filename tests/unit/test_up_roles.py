"""What `hedgerow up` starts, as data."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from registry.errors import PortTaken
from registry.up.__main__ import banner, main
from registry.up.ports import settle_ports
from registry.up.roles import MOST_HUBS, UpSettings, from_folder, plan_roles, role_environment
from registry.wakeups_socket import MOST_SHARING

RUN = Path("/srv/w/run")


def test_all_four_roles_start_broker_first_and_controller_last() -> None:
    roles = plan_roles(UpSettings(workspace=Path("/srv/w")), RUN)
    assert [role.name for role in roles] == ["broker", "server", "hub", "controller"]
    assert all(role.argv[1:3] == ("-P", "-m") for role in roles)
    assert all("--watch-parent" in role.argv for role in roles)


def test_an_own_broker_replaces_the_embedded_one() -> None:
    settings = UpSettings(workspace=Path("/srv/w"), broker="mqtts://plant.example:8883")
    assert [role.name for role in plan_roles(settings, RUN)] == ["server", "hub", "controller"]
    assert role_environment(settings)["HEDGEROW_BROKER_URL"] == "mqtts://plant.example:8883"


def test_no_password_reaches_a_command_line() -> None:
    settings = UpSettings(workspace=Path("/srv/w"), database="postgresql://u:secret-1@db/x", broker="mqtt://u:secret-2@broker")
    assert "secret" not in " ".join(word for role in plan_roles(settings, RUN) for word in role.argv)
    assert "secret-1" in role_environment(settings)["HEDGEROW_DATABASE"]


def test_where_contents_are_reaches_every_role() -> None:
    settings = UpSettings(workspace=Path("/srv/w"), blobs="s3://plant/hedgerow", blobs_endpoint="https://s3.plant.example")
    environment = role_environment(settings)
    assert environment["HEDGEROW_BLOBS"] == "s3://plant/hedgerow"
    assert environment["HEDGEROW_BLOBS_ENDPOINT"] == "https://s3.plant.example"
    assert "HEDGEROW_BLOBS" not in role_environment(UpSettings())


def test_devices_are_told_the_public_address() -> None:
    settings = UpSettings(workspace=Path("/srv/w"), public_url="https://plant.example")
    assert role_environment(settings)["HEDGEROW_PUBLIC_URL"] == "https://plant.example"


def test_files_are_those_of_the_folder_where_it_was_typed() -> None:
    given = UpSettings(workspace=Path("w"), egress_ca_file=Path("/etc/plant.pem"), registry_logins=Path("logins.json"))
    seen = from_folder(given, Path("/srv/ann"))
    assert seen.workspace == Path("/srv/ann/w")
    assert role_environment(seen)["HEDGEROW_REGISTRY_LOGINS"] == "/srv/ann/logins.json"
    assert role_environment(seen)["HEDGEROW_EGRESS_CA_FILE"] == "/etc/plant.pem"
    assert from_folder(UpSettings(), Path("/srv/ann")).registry_logins is None


def test_zero_becomes_three_different_free_ports() -> None:
    settled = settle_ports(UpSettings(port=0, broker_port=0, balancer_port=0))
    assert len({settled.port, settled.broker_port, settled.balancer_port}) == 3
    assert 0 not in {settled.port, settled.broker_port, settled.balancer_port}


def test_a_taken_port_is_named_with_its_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"Port {port} .* is taken") as refused:
            settle_ports(UpSettings(port=0, broker_port=port, balancer_port=0))
    assert "--broker-port" in refused.value.sentence()


def test_several_hubs_share_and_have_names_of_their_own() -> None:
    roles = plan_roles(UpSettings(workspace=Path("/srv/w"), hubs=3, database="postgresql://db/x"), RUN)
    hubs = [role for role in roles if role.name.startswith("hub")]
    assert [role.name for role in hubs] == ["hub", "hub-2", "hub-3"]
    assert all("registry.hub" in role.argv and "--share" in role.argv for role in hubs)
    assert len({role.ready_file for role in hubs}) == 3
    assert "--share" not in " ".join(word for role in plan_roles(UpSettings(), RUN) for word in role.argv)
    assert MOST_HUBS == MOST_SHARING


@pytest.mark.parametrize("options", [["--hubs", "2"], ["--hubs", "9", "--database", "postgresql://db/x"]])
def test_hubs_that_cannot_share_are_refused_before_anything_starts(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--workspace", str(tmp_path / "w")]) == 2
    assert "--hubs" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_mosquitto_takes_the_place_of_the_embedded_broker() -> None:
    settings = UpSettings(workspace=Path("/srv/w"), mosquitto="0.0.0.0:8883", mosquitto_names="plant.example")
    broker = plan_roles(settings, RUN)[0]
    assert broker.name == "broker"
    assert "registry.mosquitto" in broker.argv
    environment = role_environment(settings)
    assert environment["HEDGEROW_DEVICE_BROKER_URL"] == "mqtts://plant.example:8883"
    assert environment["HEDGEROW_DEVICE_BROKER_CA"] == "/srv/w/keys/ca.pem"
    assert environment["HEDGEROW_BROKER_LOGIN"] == "own"
    public = role_environment(UpSettings(workspace=Path("/srv/w"), mosquitto="0.0.0.0:8883", mosquitto_cert=Path("/etc/c.pem")))
    assert "HEDGEROW_DEVICE_BROKER_CA" not in public
    assert "HEDGEROW_BROKER_LOGIN" not in role_environment(UpSettings(workspace=Path("/srv/w")))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--mosquitto", "plant.example"], "Correct --mosquitto."),
        (["--mosquitto", "127.0.0.1:8883", "--broker", "mqtts://plant.example"], "--broker"),
        (["--mosquitto-names", "plant.example"], "Correct --mosquitto-names."),
        (["--mosquitto-cert", "cert.pem"], "Correct --mosquitto-cert."),
    ],
)
def test_options_of_mosquitto_that_cannot_hold_are_refused(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--workspace", str(tmp_path / "w")]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        (UpSettings(), "mqtt://127.0.0.1:1883 (embedded)"),
        (UpSettings(mosquitto="0.0.0.0:8883", mosquitto_names="plant.example"), "mqtts://plant.example:8883 (Mosquitto)"),
        (UpSettings(broker="mqtts://ann:secret@plant.example"), "mqtts://plant.example\n"),
    ],
)
def test_the_banner_names_the_broker_as_devices_reach_it(settings: UpSettings, shown: str) -> None:
    assert shown in banner(settings, 1.0)
