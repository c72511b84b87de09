"""``hedgerow secret``: values come from a file or standard input, never from the command line, which others can read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.input import read_text
from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import ago, print_json, print_page, print_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api import SecretInfo

_STDIN = Path("/dev/stdin")


@click.group("secret")
def command() -> None:
    """Values that the workspace keeps sealed and shows to nobody."""


@command.command("set")
@click.argument("name")
@click.option(
    "--value-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    help="Read the value from this file instead of standard input.",
)
@json_option
def set_secret(name: str, value_file: Path | None, as_json: bool) -> None:
    """Set or replace the secret NAME; one newline at the end of the value is left out."""
    value = _value(value_file)
    if not value:
        raise click.ClickException("The value is empty. Write it to standard input, or give --value-file FILE.")
    with workspace() as client:
        made = client.secrets.set(name, value)
    if as_json:
        print_json(made)
    else:
        click.echo(f"Set {made.name} (revision {made.revision})")


@command.command("list")
@limit_option
@json_option
def list_secrets(limit: int, as_json: bool) -> None:
    """Names of the secrets; their values are shown to nobody."""
    with workspace() as client:
        page = client.secrets.list(limit)
    columns: dict[str, Callable[[SecretInfo], object]] = {
        "name": lambda s: s.name,
        "revision": lambda s: s.revision,
        "key": lambda s: s.key_id,
        "set": lambda s: ago(s.updated_at),
        "by": lambda s: s.updated_by,
    }
    print_page(page, limit, columns, empty="No secrets yet: hedgerow secret set NAME", as_json=as_json)


@command.command()
@click.argument("name", shell_complete=complete.secrets)
@json_option
def show(name: str, as_json: bool) -> None:
    """When and by whom the secret NAME was set; never its value."""
    with workspace() as client:
        found = client.secrets.get(name)
    if as_json:
        print_json(found)
        return
    print_record(
        {
            "secret": found.name,
            "revision": found.revision,
            "key": found.key_id,
            "set": f"{ago(found.updated_at)} by {found.updated_by or 'the workspace'}",
        }
    )


@command.command()
@click.argument("name", shell_complete=complete.secrets)
@yes_option
@json_option
def delete(name: str, yes: bool, as_json: bool) -> None:
    """Forget the secret NAME."""
    with workspace() as client:
        meaning = ", whose value nobody can bring back"
        take_away(name, lambda: client.secrets.delete(name), meaning=meaning, yes=yes, as_json=as_json)


@command.command("rotate-key")
@json_option
def rotate_key(as_json: bool) -> None:
    """Make a new vault key, seal every value anew and forget the old key."""
    with workspace() as client:
        done = client.secrets.rotate_key()
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done.resealed} values are sealed under the new key {done.key_id}")


def _value(file: Path | None) -> str:
    if file is None and sys.stdin.isatty():
        text: str = click.prompt("Value", hide_input=True, err=True)
        return text
    text = read_text(_STDIN if file is None or str(file) == "-" else file)
    return text.removesuffix("\n").removesuffix("\r")
