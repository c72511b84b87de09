"""``hedgerow webhook``: have events sent to other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli import complete
from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import ago, print_json, print_page, print_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.events import Delivery, DeliveryState, Webhook


@click.group("webhook")
def command() -> None:
    """Have events sent to other programs."""


@command.command()
@click.argument("name")
@click.argument("url")
@click.option(
    "--kind", "-k", "kinds", multiple=True, metavar="KIND", help="model.registered, model.*; repeatable. All, when left out."
)
@json_option
def create(name: str, url: str, kinds: tuple[str, ...], as_json: bool) -> None:
    """Send every event from now on to URL, and print the secret that signs them, this once."""
    with workspace() as client:
        made = client.webhooks.create(name, url, kinds)
    if as_json:
        print_json(made)
    else:
        click.echo(made.secret)


@command.command("list")
@limit_option
@json_option
def list_webhooks(limit: int, as_json: bool) -> None:
    """By name."""
    with workspace() as client:
        page = client.webhooks.list(limit)
    columns: dict[str, Callable[[Webhook], object]] = {
        "webhook": lambda w: w.name,
        "url": lambda w: w.url,
        "kinds": lambda w: " ".join(w.kinds) or "all",
        "state": _state,
        "waiting": lambda w: w.waiting,
        "dead": lambda w: w.dead,
    }
    print_page(page, limit, columns, empty="No webhooks.", as_json=as_json)


@command.command()
@click.argument("name", shell_complete=complete.webhooks)
@json_option
def show(name: str, as_json: bool) -> None:
    """One webhook, without its secret."""
    with workspace() as client:
        found = client.webhooks.get(name)
    if as_json:
        print_json(found)
        return
    print_record(
        {
            "webhook": found.name,
            "url": found.url,
            "kinds": " ".join(found.kinds) or "all",
            "state": _state(found),
            "failing": ago(found.failing_since) and f"since {ago(found.failing_since)}",
            "waiting": found.waiting,
            "dead": found.dead,
            "created": ago(found.created_at),
        }
    )


@command.command()
@click.argument("name", shell_complete=complete.webhooks)
@click.option("--state", type=click.Choice(["waiting", "delivered", "dead"]), help="Only those.")
@limit_option
@json_option
def deliveries(name: str, state: str | None, limit: int, as_json: bool) -> None:
    """Newest first: what was sent, what waits, what was given up."""
    with workspace() as client:
        page = client.webhooks.deliveries(name, state=cast("DeliveryState | None", state), limit=limit)
    columns: dict[str, Callable[[Delivery], object]] = {
        "event": lambda d: d.event_number,
        "kind": lambda d: d.kind,
        "subject": lambda d: d.subject,
        "state": lambda d: d.state,
        "attempts": lambda d: d.attempts,
        "status": lambda d: d.status_code,
        "ended": lambda d: ago(d.ended_at),
        "problem": lambda d: d.problem,
    }
    print_page(page, limit, columns, empty="No delivery fits." if state else "Nothing was sent yet.", as_json=as_json)


@command.command()
@click.argument("name", shell_complete=complete.webhooks)
@click.option("--event", "number", type=click.IntRange(min=1), help="Only this event, whatever became of it.")
@json_option
def redeliver(name: str, number: int | None, as_json: bool) -> None:
    """Send again whatever was given up."""
    with workspace() as client:
        count = client.webhooks.redeliver(name, number)
    if as_json:
        print_json({"count": count})
    else:
        click.echo(f"{count} {'delivery waits' if count == 1 else 'deliveries wait'} again")


@command.command()
@click.argument("name", shell_complete=complete.webhooks)
@click.option("--url", help="Send to this address from now on, also what waits.")
@click.option(
    "--kind", "-k", "kinds", multiple=True, metavar="KIND", help="Events of this kind from now on; repeatable; '*' for all."
)
@json_option
def change(name: str, url: str | None, kinds: tuple[str, ...], as_json: bool) -> None:
    """Another address, or other kinds of events; the secret stays."""
    if url is None and not kinds:
        raise click.UsageError("Give --url or --kind.")
    wanted = None if not kinds else [] if "*" in kinds else kinds
    with workspace() as client:
        _changed(client.webhooks.change(name, url=url, kinds=wanted), as_json)


@command.command()
@click.argument("name", shell_complete=complete.webhooks)
@json_option
def pause(name: str, as_json: bool) -> None:
    """Send nothing until it is resumed; events wait meanwhile."""
    with workspace() as client:
        _changed(client.webhooks.pause(name), as_json)


@command.command()
@click.argument("name", shell_complete=complete.webhooks)
@json_option
def resume(name: str, as_json: bool) -> None:
    """Go on where it was paused."""
    with workspace() as client:
        _changed(client.webhooks.resume(name), as_json)


@command.command("rotate-secret")
@click.argument("name", shell_complete=complete.webhooks)
@json_option
def rotate_secret(name: str, as_json: bool) -> None:
    """Sign with a new secret from now on, and print it, this once."""
    with workspace() as client:
        made = client.webhooks.rotate_secret(name)
    if as_json:
        print_json(made)
    else:
        click.echo(made.secret)


@command.command()
@click.argument("name", shell_complete=complete.webhooks)
@yes_option
@json_option
def delete(name: str, yes: bool, as_json: bool) -> None:
    """Delete it with everything that it still had to be sent."""
    with workspace() as client:
        meaning = " with everything that it still had to be sent"
        take_away(name, lambda: client.webhooks.delete(name), meaning=meaning, yes=yes, as_json=as_json)


@command.command()
@click.argument("name", shell_complete=complete.webhooks)
@json_option
def test(name: str, as_json: bool) -> None:
    """Send a ping now and say what becomes of it; exit code 1 when it is not delivered."""
    with workspace() as client:
        sent = client.webhooks.test(name)
    if as_json:
        print_json(sent)
    elif sent.state == "delivered":
        click.echo(f"{name} took the ping ({sent.status_code})")
    if sent.state != "delivered":
        said = sent.problem or "nothing was sent yet; does the controller run?"
        raise click.ClickException(f"{name} did not take the ping: {said}")


def _changed(made: Webhook, as_json: bool) -> None:
    if as_json:
        print_json(made)
    else:
        click.echo(f"{made.name} is {made.state}; {made.waiting} events wait")


def _state(found: Webhook) -> str:
    return "failing" if found.failing_since and found.state == "active" else found.state
