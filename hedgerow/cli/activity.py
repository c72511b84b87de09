"""``hedgerow activity``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli.options import FILTER, json_option, limit_option, workspace
from hedgerow.cli.output import ago, follow, print_json, print_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.work import Activity, ActivityState


@click.group("activity")
def command() -> None:
    """Follow or cancel long work."""


@command.command("list")
@click.option("--kind", metavar="KIND", type=FILTER, help="Only of this kind: image.build, service.deploy, run, …")
@click.option("--state", type=click.Choice(["queued", "running", "succeeded", "failed", "cancelled"]), help="Only in this state.")
@click.option("--subject", metavar="SUBJECT", type=FILTER, help="Only about this.")
@limit_option
@json_option
def list_activities(kind: str | None, state: str | None, subject: str | None, limit: int, as_json: bool) -> None:
    """Newest first."""
    with workspace() as client:
        page = client.activities.list(limit, kind=kind, state=cast("ActivityState | None", state), subject=subject)
    columns: dict[str, Callable[[Activity], object]] = {
        "activity": lambda a: a.id,
        "kind": lambda a: a.kind,
        "subject": lambda a: a.subject,
        "state": lambda a: a.state,
        "progress": lambda a: f"{a.progress:.0%}",
        "step": lambda a: a.problem.message if a.problem else a.step,
        "created": lambda a: ago(a.created_at),
    }
    empty = "No activity fits." if kind or state or subject else "Nothing was done yet."
    print_page(page, limit, columns, empty=empty, as_json=as_json)


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
@json_option
def cancel(activity_id: str, as_json: bool) -> None:
    """Queued work ends at once, running work is asked to stop."""
    with workspace() as client:
        activity = client.activities.cancel(activity_id)
    if as_json:
        print_json(activity)
    else:
        click.echo(f"{activity.id}: {'asked to stop' if activity.state == 'running' else activity.state}")
