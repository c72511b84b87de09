"""``hedgerow token``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import ago, print_items, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api import Role, TokenInfo


@click.group("token")
def command() -> None:
    """Create, list and revoke tokens."""


@command.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["owner", "contributor", "reader", "puller"]), default="reader", show_default=True)
@click.option("--expires-in-days", type=click.IntRange(1, 3650), help="Never, when left out.")
@json_option
def create(name: str, role: str, expires_in_days: int | None, as_json: bool) -> None:
    """Make a token and print its secret, this once."""
    seconds = expires_in_days * 86_400 if expires_in_days else None
    with workspace() as client:
        token = client.tokens.create(name, cast("Role", role), seconds)
    if as_json:
        print_json(token)
    else:
        click.echo(token.secret)


@command.command("list")
@json_option
def list_tokens(as_json: bool) -> None:
    """All tokens, without their secrets."""
    with workspace() as client:
        items = client.tokens.list().items
    columns: dict[str, Callable[[TokenInfo], object]] = {
        "token": lambda t: t.id,
        "name": lambda t: t.name,
        "role": lambda t: t.role,
        "state": lambda t: "revoked" if t.revoked_at else "",
        "created": lambda t: ago(t.created_at),
        "last used": lambda t: ago(t.last_used_at),
    }
    print_items(items, columns, empty="No tokens.", as_json=as_json)


@command.command()
@click.argument("token_id")
def revoke(token_id: str) -> None:
    """Refuse it from now on."""
    with workspace() as client:
        client.tokens.revoke(token_id)
    click.echo(f"Revoked {token_id}")
