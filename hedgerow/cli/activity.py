"""``hedgerow activity``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import ago, follow, print_items, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.work import Activity


@click.group("activity")
def command() -> None:
    """Follow or cancel long work."""


@command.command("list")
@limit_option
@json_option
def list_activities(limit: int, as_json: bool) -> None:
    """Newest first."""
    with workspace() as client:
        items = client.activities.list(limit).items
    columns: dict[str, Callable[[Activity], object]] = {
        "activity": lambda a: a.id,
        "kind": lambda a: a.kind,
        "subject": lambda a: a.subject,
        "state": lambda a: a.state,
        "progress": lambda a: f"{a.progress:.0%}",
        "step": lambda a: a.problem.message if a.problem else a.step,
        "created": lambda a: ago(a.created_at),
    }
    print_items(items, columns, empty="Nothing was done yet.", as_json=as_json)


@command.command("follow")
@click.argument("activity_id")
@json_option
def follow_activity(activity_id: str, as_json: bool) -> None:
    """Wait for its end; exit code 1 when it fails."""
    with workspace() as client:
        activity = follow(client, activity_id, activity_id, quiet=as_json)
    if as_json:
        print_json(activity)
    else:
        click.echo(f"{activity.kind} {activity.subject}: {activity.state}")


@command.command()
@click.argument("activity_id")
def cancel(activity_id: str) -> None:
    """Queued work ends at once, running work is asked to stop."""
    with workspace() as client:
        activity = client.activities.cancel(activity_id)
    click.echo(f"{activity.id}: {'asked to stop' if activity.state == 'running' else activity.state}")
