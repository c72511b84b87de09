"""``hedgerow token``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import ago, print_items, print_json, print_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api import Role, TokenInfo

_UNITS_S = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}


@click.group("token")
def command() -> None:
    """Create, list and revoke tokens."""


def _seconds(_context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8})(s|min|h|d|w)", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration; write 30d, 12h or 45min", param=parameter)
    return int(found[1]) * _UNITS_S[found[2]]


@command.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["owner", "contributor", "reader", "puller"]), default="reader", show_default=True)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="NOUN:NAME",
    help="What it reaches: models:iris, 'models:team-a.*' or 'models:*'; repeatable. Everything, when left out.",
)
@click.option(
    "--expires", "seconds", callback=_seconds, metavar="DURATION", help="After 30d, 12h, 45min, …; never, when left out."
)
@click.option("--expires-in-days", type=click.IntRange(1, 3650), hidden=True)
@json_option
def create(
    name: str, role: str, scopes: tuple[str, ...], seconds: int | None, expires_in_days: int | None, as_json: bool
) -> None:
    """Make a token and print its secret, this once."""
    if expires_in_days and seconds is None:
        seconds = expires_in_days * _UNITS_S["d"]
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
        items = client.tokens.list(limit).items
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
    print_items(items, columns, empty="No tokens.", as_json=as_json)


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
@json_option
def revoke(token_id: str, as_json: bool) -> None:
    """Refuse it from now on."""
    with workspace() as client:
        client.tokens.revoke(token_id)
    if as_json:
        print_json({"revoked": token_id})
    else:
        click.echo(f"Revoked {token_id}")


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
