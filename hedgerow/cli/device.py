"""``hedgerow device``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from hedgerow.atomic_write import atomic_write
from hedgerow.cli import complete, device_certificate
from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.device_key import key
from hedgerow.cli.device_methods import invoke, logs, restart, support_bundle
from hedgerow.cli.device_rotate import rotate_key, shown_key, shown_version
from hedgerow.cli.device_twin import twin
from hedgerow.cli.options import FILTER, json_option, limit_option, tag_changes, tag_filter_option, tag_option, workspace
from hedgerow.cli.output import ago, pairs, print_json, print_page, print_record, print_table
from hedgerow.cli.whole_help import WholeHelp
from hedgerow.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api_fleet import Device, FleetEvent
    from hedgerow.contracts.status import StatusReport
    from hedgerow.sdk.devices import Presence


@click.group("device", cls=WholeHelp)
def command() -> None:
    """Enrol devices and look at them."""


for _method in (invoke, logs, restart, support_bundle, twin):
    command.add_command(_method)
command.add_command(rotate_key)
command.add_command(device_certificate.command)
command.add_command(key)


@command.command()
@click.argument("name")
@tag_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), show_default="NAME.toml", help="Where to write it."
)
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
            click.echo("It holds addresses of this machine; others: --public-url and --mosquitto (or --broker) of `hedgerow up`.")


@command.command("list")
@click.option("--name", type=FILTER, shell_complete=complete.devices, help="Only this device; 'press-*': names that begin so.")
@click.option("--state", type=click.Choice(["online", "offline", "revoked"]), help="Only those in this state.")
@tag_filter_option
@click.option(
    "--edge-deployment",
    metavar="NAME",
    type=FILTER,
    shell_complete=complete.edge_deployments,
    help="Only those that run this edge deployment.",
)
@limit_option
@json_option
def list_devices(
    name: str | None, state: str | None, tags: dict[str, str | None], edge_deployment: str | None, limit: int, as_json: bool
) -> None:
    """By name."""
    wanted = cast("Presence | None", state)
    with workspace() as client:
        page = client.devices.list(limit, name=name, state=wanted, tags=tags, edge_deployment=edge_deployment)
    columns: dict[str, Callable[[Device], object]] = {
        "device": lambda d: d.name,
        "state": _state,
        "deployment": lambda d: d.edge_deployment,
        "modules": lambda d: len(d.reported.modules) if d.reported else 0,
        "tags": lambda d: pairs(d.tags),
        "seen": lambda d: ago(d.seen_at),
    }
    if any(found.enrolled_with for found in page.items):
        columns["enrolled with"] = lambda d: d.enrolled_with
    asked = name or state or tags or edge_deployment
    empty = "No device fits." if asked else "No devices yet: hedgerow device enroll NAME"
    print_page(page, limit, columns, empty=empty, as_json=as_json)


def _state(device: Device) -> str:
    return "revoked" if device.revoked_at else "online" if device.online else "offline"


@command.command()
@click.argument("name", shell_complete=complete.devices)
@json_option
def show(name: str, as_json: bool) -> None:
    """A device, its modules and what it decided last."""
    with workspace() as client:
        device = client.devices.get(name)
        certificate = None if as_json else device_certificate.shown_certificate(client, name, SystemClock().now())
    if as_json:
        print_json(device)
        return
    outcome = device.reported.desired if device.reported else None
    print_record(
        {
            "device": device.name,
            "uuid": device.uuid,
            "state": _state(device),
            "tags": pairs(device.tags),
            "enrolled": f"{ago(device.enrolled_at)} with key {device.enrolled_with}"
            if device.enrolled_with
            else ago(device.enrolled_at),
            "seen": ago(device.seen_at),
            "key": shown_key(device),
            **({"certificate": certificate} if certificate else {}),
            "edge deployment": device.edge_deployment,
            "desired version": shown_version(device),
            "applied": f"version {outcome.version}: {outcome.code} {outcome.message}" if outcome else "never reported",
            "agent": _agent(device.reported),
        }
    )
    if device.reported:
        rows = [(name, m.state, m.restart_count, m.address, m.reason) for name, m in device.reported.modules.items()]
        print_table(("module", "state", "restarts", "address", "reason"), rows, "No modules.")


def _agent(reported: StatusReport | None) -> str:
    """Its version, and what became of the release that its deployment asks for."""
    if reported is None:
        return ""
    release = reported.agent_release
    if release is None or (release.state == "current" and not release.reason):
        return reported.agent_version
    return f"{reported.agent_version}; release {release.wanted}: {release.state} {release.reason}".rstrip()


@command.command()
@click.argument("device", required=False, shell_complete=complete.devices)
@limit_option
@json_option
def events(device: str | None, limit: int, as_json: bool) -> None:
    """What happened to DEVICE, or to all: newest first."""
    with workspace() as client:
        page = client.devices.events(device, limit)
    columns: dict[str, Callable[[FleetEvent], object]] = {
        "device": lambda e: e.device,
        "when": lambda e: ago(e.at),
        "event": lambda e: e.kind,
        "reason": lambda e: e.reason,
    }
    print_page(page, limit, columns, empty="Nothing happened yet.", as_json=as_json)


@command.command()
@click.argument("name", shell_complete=complete.devices)
@tag_changes
@json_option
def tag(name: str, changes: dict[str, str | None], as_json: bool) -> None:
    """Set tags, take tags away. Edge deployments aim by them."""
    if not changes:
        raise click.UsageError("Give KEY=VALUE, or --remove KEY.")
    with workspace() as client:
        device = client.devices.change_tags(name, changes)
    if as_json:
        print_json(device)
    else:
        click.echo(f"{device.name}  {pairs(device.tags) or 'no tags'}")


@command.command()
@click.argument("name", shell_complete=complete.devices)
@yes_option
@json_option
def revoke(name: str, yes: bool, as_json: bool) -> None:
    """Take nothing from the device any more; its record stays. It must be enrolled again under another name."""
    with workspace() as client:
        meaning, revoke_it = " for good: nothing is taken from it any more", partial(client.devices.revoke, name)
        take_away(name, revoke_it, meaning=meaning, yes=yes, as_json=as_json, verb="revoke", done="revoked")


@command.command()
@click.argument("name", shell_complete=complete.devices)
@yes_option
@json_option
def delete(name: str, yes: bool, as_json: bool) -> None:
    """Revoke the device and forget it; its telemetry stays."""
    with workspace() as client:
        meaning = ", whose key then is worth nothing"
        take_away(name, lambda: client.devices.delete(name), meaning=meaning, yes=yes, as_json=as_json)
