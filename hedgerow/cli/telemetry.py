"""``hedgerow telemetry``."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import plain, print_items, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api import RecordedGap

_LOOK_S = 1.0


@click.group("telemetry")
def command() -> None:
    """Telemetry that devices sent."""


@command.command()
@click.option("--device")
@click.option("--module")
@click.option("--follow", "-f", is_flag=True, help="Go on as new messages come; Ctrl-C ends it.")
@click.option("--after", help="Go on after this position (the `next` of an earlier answer).")
@limit_option
@json_option
def tail(device: str | None, module: str | None, follow: bool, after: str | None, limit: int, as_json: bool) -> None:
    """Messages, oldest first; one a line."""
    pause = threading.Event()
    with workspace() as client:
        while True:
            page = client.telemetry.list(device, module, limit, after)
            for message in page.items:
                if as_json:
                    print_json(message)
                else:
                    moment = datetime.fromtimestamp(message.time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
                    click.echo(f"{moment}  {message.device}/{message.module}  {plain(message.body)}")
            after = page.next or after
            if not follow:
                return
            if not page.items:
                pause.wait(_LOOK_S)


@command.command()
@click.option("--device")
@json_option
def gaps(device: str | None, as_json: bool) -> None:
    """Messages that will never arrive, and why."""
    with workspace() as client:
        items = client.telemetry.gaps(device).items
    columns: dict[str, Callable[[RecordedGap], object]] = {
        "device": lambda g: g.device,
        "stream": lambda g: g.stream,
        "from": lambda g: g.first_sequence,
        "to": lambda g: g.last_sequence,
        "reason": lambda g: g.reason,
    }
    print_items(items, columns, empty="No gaps: everything that was acknowledged is stored.", as_json=as_json)
