"""``hedgerow telemetry``."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.options import FILTER, json_option, limit_option, workspace
from hedgerow.cli.output import plain, print_json, print_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hedgerow.contracts.api_fleet import RecordedGap

_LOOK_S = 1.0
_DEVICE = click.option("--device", metavar="NAME", type=FILTER, shell_complete=complete.devices, help="Only of this device.")


@click.group("telemetry")
def command() -> None:
    """Telemetry that devices sent."""


@command.command()
@_DEVICE
@click.option("--module", metavar="NAME", type=FILTER, help="Only of this module.")
@click.option("--follow", "-f", is_flag=True, help="Go on as new messages come; Ctrl-C ends it.")
@click.option("--after", metavar="POSITION", type=FILTER, help="Go on after this position (the `next` of an earlier answer).")
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
                    click.echo(f"{moment}  {message.device}/{message.module}  {plain(message.body)}{_shown(message.properties)}")
            after = page.next or after
            if not follow:
                return
            if not page.items:
                pause.wait(_LOOK_S)


def _shown(properties: Mapping[str, str]) -> str:
    """What stands behind a message's body, for people."""
    return "".join(f"  {plain(_one_word(name))}={plain(_one_word(value))}" for name, value in properties.items())


def _one_word(text: str) -> str:
    """As it is, or in quotes where it would be taken for several or break the line."""
    return text if text.isprintable() and not set(text) & set(' ="') else json.dumps(text, ensure_ascii=False)


@command.command()
@_DEVICE
@limit_option
@json_option
def gaps(device: str | None, limit: int, as_json: bool) -> None:
    """Messages that will never arrive, and why."""
    with workspace() as client:
        page = client.telemetry.gaps(device, limit)
    columns: dict[str, Callable[[RecordedGap], object]] = {
        "device": lambda g: g.device,
        "stream": lambda g: g.stream,
        "from": lambda g: g.first_sequence,
        "to": lambda g: g.last_sequence,
        "reason": lambda g: g.reason,
    }
    print_page(page, limit, columns, empty="No gaps: everything that was acknowledged is stored.", as_json=as_json)
