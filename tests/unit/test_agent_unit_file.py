"""The systemd unit as text: what it must say, what it must never say, and names that systemd would read otherwise."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from edge_agent.service.notify import watchdog_s
from edge_agent.service.unit import NAME, USUAL, Service, unit_text
from scripts.inventory import TOP


def values(text: str) -> dict[str, list[str]]:
    """Every key of a unit with its values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith(("[", "#")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_shipped_unit_is_the_one_for_the_usual_places() -> None:
    assert (TOP / "ops/systemd" / NAME).read_text() == unit_text(USUAL)


@pytest.mark.parametrize("user", [False, True])
def test_modules_outlive_the_agent_and_nothing_gives_up(user: bool) -> None:
    unit = values(unit_text(Service(["/usr/bin/python3"], Path("/etc/d.toml"), user=user)))
    expected = {
        "Type": "notify",
        "KillMode": "process",
        "Delegate": "yes",
        "OOMPolicy": "continue",
        "Restart": "always",
        "StartLimitIntervalSec": "0",
        "WatchdogSec": "60",
    }
    assert {key: unit[key] for key in expected} == {key: [value] for key, value in expected.items()}
    # Each of these would end modules with the agent, or take their files away under them.
    harmful = {"PrivateTmp", "RuntimeDirectory", "PrivateDevices", "ProtectHome", "ProtectKernelTunables", "ProtectControlGroups"}
    assert not (harmful | {"BindsTo", "PartOf", "Requires"}) & unit.keys()
    assert "network" not in unit_text(USUAL)


def test_a_state_folder_of_systemds_own_or_one_that_is_opened() -> None:
    shipped = values(unit_text(USUAL))
    assert shipped["StateDirectory"] == ["hedgerow-agent"]
    assert "ReadWritePaths" not in shipped
    own = values(unit_text(Service(["/usr/bin/python3"], Path("/etc/h/device.toml"), Path("/etc/h/state"))))
    assert own["ReadWritePaths"] == ["-/etc/h/state"]
    assert "StateDirectory" not in own
    folders = Path("/etc/h/state"), Path("/etc/h x/releases")
    both = values(unit_text(Service(["/usr/bin/python3"], Path("/etc/h/device.toml"), folders[0], releases=folders[1])))
    assert both["ReadWritePaths"] == ["-/etc/h/state", '"-/etc/h x/releases"']


def test_paths_that_systemd_would_read_otherwise_are_quoted() -> None:
    service = Service(["/opt/a b/python", "-P"], Path('/home/$me/50%/de"vice.toml'), Path("/srv/x y"))
    (command,) = values(unit_text(service))["ExecStart"]
    unescaped = [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(command)]
    assert unescaped == ["/opt/a b/python", "-P", "--config", '/home/$me/50%/de"vice.toml', "--state-dir", "/srv/x y"]


@pytest.mark.parametrize(
    ("usec", "pid", "granted"),
    [
        ("60000000", None, 60.0),
        ("60000000", "7", 60.0),
        ("60000000", "8", None),
        (None, None, None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_ours_only_when_it_is_meant_for_us(usec: str | None, pid: str | None, granted: float | None) -> None:
    assert watchdog_s(usec, pid, own_pid=7) == granted
