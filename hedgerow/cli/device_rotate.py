"""``hedgerow device rotate-key``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import print_json

if TYPE_CHECKING:
    from hedgerow.contracts.api_fleet import Device


def shown_key(device: Device) -> str:
    """Which key it has, and whether another one is on its way."""
    if device.wanted_key_generation > device.key_generation:
        return f"{device.key_generation}; it should fetch {device.wanted_key_generation}"
    return str(device.key_generation)


def shown_version(device: Device) -> str:
    """Of its desired state, and whether another one waits for a signature."""
    if device.unsigned_version:
        return f"{device.desired_version}; {device.unsigned_version} waits for a signature (hedgerow edge sign)"
    return str(device.desired_version)


@click.command("rotate-key")
@click.argument("name", shell_complete=complete.devices)
@json_option
def rotate_key(name: str, as_json: bool) -> None:
    """Give the device another key. It fetches it by itself; the one of before ends when it uses the new one."""
    with workspace() as client:
        device = client.devices.rotate_key(name)
    if as_json:
        print_json(device)
        return
    click.echo(
        f"{name} should fetch key {device.wanted_key_generation}; key {device.key_generation} is good until it uses that. "
        f"See: hedgerow device show {name}"
    )
