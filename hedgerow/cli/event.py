"""``hedgerow event``: what happened, and what happens."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import ago, pairs, plain, print_items, short
from hedgerow.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.events import Event

_UNITS = {"d": "days", "h": "hours", "min": "minutes", "s": "seconds"}
_SPAN = re.compile(r"(\d{1,5})(d|h|min|s)")


@click.group("event")
def command() -> None:
    """What happened in the workspace, and what happens now."""


def _moment(_context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """``2h`` (ago) or a time."""
    if value is None:
        return None
    span = _SPAN.fullmatch(value)
    if span:
        return SystemClock().now() - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no time; write 2026-01-31T12:00:00Z, or 30min, 12h, 7d", param=parameter
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--since", callback=_moment, metavar="TIME|SPAN", help="Of this time and later: 2026-01-31T12:00:00Z, 2h, 7d."
        ),
        click.option("--actor", metavar="TOKEN|NAME", help="Of this token (id or name), or of hub or controller."),
        click.option("--subject", metavar="SUBJECT", help="About this: model/iris:3, model/iris:*, device/*."),
        click.option("--kind", metavar="KIND", help="Of this kind: model.registered, model.*."),
    ):
        function = option(function)
    return function


@command.command("list")
@_filters
@limit_option
@json_option
def list_events(
    kind: str | None, subject: str | None, actor: str | None, since: datetime | None, limit: int, as_json: bool
) -> None:
    """Newest first."""
    with workspace() as client:
        items = client.events.list(kind=kind, subject=subject, actor=actor, since=since, newest=True, limit=limit).items
    columns: dict[str, Callable[[Event], object]] = {
        "event": lambda e: e.number,
        "when": lambda e: ago(e.at),
        "kind": lambda e: e.kind,
        "subject": lambda e: e.subject,
        "by": lambda e: e.actor.name,
        "details": lambda e: _details(e)[:100],
    }
    print_items(items, columns, empty="No such event.", as_json=as_json)


@command.command()
@_filters
@click.option("--after", metavar="CURSOR", help="Begin after the event with this cursor (see --json).")
@json_option
def follow(
    kind: str | None, subject: str | None, actor: str | None, since: datetime | None, after: str | None, as_json: bool
) -> None:
    """Print events as they happen, until Ctrl-C; with --json one document a line. A broken connection is picked up again."""

    def restored(incarnation: str) -> None:
        click.echo(f"The workspace was restored from a backup (incarnation {incarnation}): from the beginning.", err=True)

    with workspace() as client:
        found = client.events.follow(kind=kind, subject=subject, actor=actor, since=since, after=after, on_restored=restored)
        for event in found:
            click.echo(msgspec.json.encode(event) if as_json else _line(event))


def _details(event: Event) -> str:
    return pairs({key: short(value) if value.startswith("sha256:") else value for key, value in event.details.items()})


def _line(event: Event) -> str:
    at = event.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return plain(f"{at}  {event.kind}  {event.subject}  by {event.actor.name}  {pairs(event.details)}".rstrip())
