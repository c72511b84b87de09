"""``hedgerow device certificate``: the certificates by which a device logs in at the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import ago, print_page
from hedgerow.cli.whole_help import WholeHelp

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from hedgerow.contracts.enrollment import DeviceCertificate
    from hedgerow.sdk.client import Client


@click.group("certificate", cls=WholeHelp)
def command() -> None:
    """Certificates by which a device logs in at the broker; it asks for them by itself."""


@command.command("list")
@click.argument("device", shell_complete=complete.devices)
@limit_option
@json_option
def list_certificates(device: str, limit: int, as_json: bool) -> None:
    """Newest first."""
    with workspace() as client:
        page = client.devices.certificates(device, limit)
    columns: dict[str, Callable[[DeviceCertificate], object]] = {
        "serial": lambda c: c.serial,
        "issued": lambda c: ago(c.issued_at),
        "good until": lambda c: f"{c.expires_at:%Y-%m-%d %H:%M}",
        "revoked": lambda c: ago(c.revoked_at) if c.revoked_at else "",
    }
    print_page(page, limit, columns, empty=f"{device} has no certificate.", as_json=as_json)


@command.command()
@click.argument("device", shell_complete=complete.devices)
@click.argument("serial")
@yes_option
@json_option
def revoke(device: str, serial: str, yes: bool, as_json: bool) -> None:
    """Refuse this one certificate; the device gets another. To shut out the device: hedgerow device revoke."""
    with workspace() as client:
        meaning = f" of {device}: connections made with it end, and with Mosquitto of ours all others for a moment"
        take_away(
            serial,
            lambda: client.devices.revoke_certificate(device, serial),
            meaning=meaning,
            yes=yes,
            as_json=as_json,
            verb="revoke",
            done="revoked",
        )


def shown_certificate(client: Client, device: str, now: datetime) -> str | None:
    """Of the newest that was not revoked, in words; None without one."""
    for one in client.devices.certificates(device, 20).items:
        if one.revoked_at is None:
            words = "good until" if one.expires_at > now else "ended at"
            return f"{words} {one.expires_at:%Y-%m-%d %H:%M} UTC"
    return None
