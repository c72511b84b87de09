"""``hedgerow device``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.atomic_write import atomic_write
from hedgerow.cli.options import json_option, limit_option, tag_option, workspace
from hedgerow.cli.output import ago, pairs, print_items, print_json, print_record, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api import Device


@click.group("device")
def command() -> None:
    """Enrol devices and look at them."""


@command.command()
@click.argument("name")
@tag_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it [NAME.toml].")
@json_option
def enroll(name: str, tags: dict[str, str], output: Path | None, as_json: bool) -> None:
    """Make a device and write its device.toml, which holds its key."""
    from hedgerow.contracts.device import to_toml

    path = output or Path(f"{name}.toml")
    try:
        # Before the device is made: its key is told this once, and must have a place to go.
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise click.ClickException(f"{path} exists already. Choose another with -o, or remove it.") from None
    try:
        with workspace() as client:
            enrolled = client.devices.enroll(name, tags)
    except BaseException:
        path.unlink()
        raise
    atomic_write(path, to_toml(enrolled.config).encode(), mode=0o600)
    if as_json:
        print_json(enrolled.device)
    else:
        click.echo(f"Enrolled {name} ({enrolled.device.uuid}). On the device: hedgerow agent run --config {path}")
        if any(f"//{host}" in enrolled.config.registry_url for host in ("127.", "localhost", "[::1]")):
            click.echo("It holds addresses of this machine; for other machines see --public-url and --broker of `hedgerow up`.")


@command.command("list")
@limit_option
@json_option
def list_devices(limit: int, as_json: bool) -> None:
    """All devices."""
    with workspace() as client:
        items = client.devices.list(limit).items
    columns: dict[str, Callable[[Device], object]] = {
        "device": lambda d: d.name,
        "state": lambda d: "online" if d.online else "silent",
        "deployment": lambda d: d.edge_deployment,
        "modules": lambda d: len(d.reported.modules) if d.reported else 0,
        "tags": lambda d: pairs(d.tags),
        "seen": lambda d: ago(d.seen_at),
    }
    print_items(items, columns, empty="No devices yet: hedgerow device enroll NAME", as_json=as_json)


@command.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """A device, its modules and what it decided last."""
    with workspace() as client:
        device = client.devices.get(name)
    if as_json:
        print_json(device)
        return
    outcome = device.reported.desired if device.reported else None
    print_record(
        {
            "device": device.name,
            "uuid": device.uuid,
            "state": "online" if device.online else "silent",
            "seen": ago(device.seen_at),
            "edge deployment": device.edge_deployment,
            "desired version": device.desired_version,
            "applied": f"version {outcome.version}: {outcome.code} {outcome.message}" if outcome else "never reported",
        }
    )
    if device.reported:
        rows = [(name, m.state, m.restart_count, m.address, m.reason) for name, m in device.reported.modules.items()]
        print_table(("module", "state", "restarts", "address", "reason"), rows, "No modules.")


@command.command()
@click.argument("name")
def delete(name: str) -> None:
    """Revoke the device and forget it; its telemetry stays."""
    with workspace() as client:
        client.devices.delete(name)
    click.echo(f"Deleted {name}")
