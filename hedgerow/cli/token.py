"""``hedgerow token``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import ago, print_json, print_page, print_record
from hedgerow.cli.times import duration_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api import Role, TokenInfo

_DAY_S = 86_400


@click.group("token")
def command() -> None:
    """Create, list and revoke tokens."""


@command.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["owner", "contributor", "reader", "puller"]),
    default="reader",
    show_default=True,
    help="What it may do.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="NOUN:NAME",
    help="What it reaches: models:iris, 'models:team-a.*' or 'models:*'; repeatable. Everything, when left out.",
)
@click.option(
    "--expires", "seconds", callback=duration_s, metavar="DURATION", help="After 30d, 12h, 45min, …; never, when left out."
)
@click.option("--expires-in-days", type=click.IntRange(1, 3650), hidden=True)
@json_option
def create(
    name: str, role: str, scopes: tuple[str, ...], seconds: int | None, expires_in_days: int | None, as_json: bool
) -> None:
    """Make a token and print its secret, this once."""
    if expires_in_days and seconds is None:
        seconds = expires_in_days * _DAY_S
    with workspace() as client:
        token = client.tokens.create(name, cast("Role", role), seconds, scopes)
    if as_json:
        print_json(token)
    else:
        click.echo(token.secret)


@command.command("list")
@limit_option
@json_option
def list_tokens(limit: int, as_json: bool) -> None:
    """Tokens, newest first, without their secrets."""
    with workspace() as client:
        page = client.tokens.list(limit)
    columns: dict[str, Callable[[TokenInfo], object]] = {
        "token": lambda t: t.id,
        "name": lambda t: t.name,
        "role": lambda t: t.role,
        "scopes": lambda t: " ".join(t.scopes),
        "state": lambda t: "revoked" if t.revoked_at else "",
        "created": lambda t: ago(t.created_at),
        "expires": lambda t: t.expires_at.date() if t.expires_at else "",
        "last used": lambda t: ago(t.last_used_at),
    }
    print_page(page, limit, columns, empty="No tokens.", as_json=as_json)


@command.command()
@click.argument("token_id")
@json_option
def show(token_id: str, as_json: bool) -> None:
    """One token, without its secret."""
    with workspace() as client:
        _print(client.tokens.get(token_id), as_json=as_json)


@command.command()
@json_option
def whoami(as_json: bool) -> None:
    """The token that these commands use: its role, what it reaches and when it ends."""
    with workspace() as client:
        _print(client.tokens.whoami(), as_json=as_json)


@command.command()
@click.argument("token_id")
@yes_option
@json_option
def revoke(token_id: str, yes: bool, as_json: bool) -> None:
    """Refuse it from now on."""
    with workspace() as client:
        meaning, do = ", and refuse whatever comes with it", partial(client.tokens.revoke, token_id)
        take_away(token_id, do, meaning=meaning, yes=yes, as_json=as_json, verb="revoke", done="revoked")


def _print(token: TokenInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(token)
        return
    print_record(
        {
            "token": token.id,
            "name": token.name,
            "role": token.role,
            "scopes": " ".join(token.scopes) or "everything that the role may",
            "created": f"{ago(token.created_at)} by {token.created_by or 'the workspace'}",
            "expires": token.expires_at or "never",
            "revoked": token.revoked_at,
            "last used": ago(token.last_used_at),
        }
    )
