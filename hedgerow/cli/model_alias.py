"""``hedgerow model alias``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hedgerow.cli.complete import models as model_names
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import ago, print_items, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api import ModelAlias


@click.group("alias")
def command() -> None:
    """Names for single versions that can be moved (NAME@ALIAS)."""


@command.command("set")
@click.argument("reference", shell_complete=model_names)
@click.argument("alias_name", metavar="ALIAS")
@click.option("--protect/--unprotect", "protected", default=None, help="Whether only owners may move or remove it.")
@json_option
def set_alias(reference: str, alias_name: str, protected: bool | None, as_json: bool) -> None:
    """Put ALIAS on the version that REFERENCE names, or move it there."""
    with workspace() as client:
        manifest = client.models.get(reference)
        found = client.models.set_alias(manifest.name, alias_name, manifest.version, protected=protected)
    if as_json:
        print_json(found)
    else:
        kept = ", protected" if found.protected else ""
        click.echo(f"{found.name}@{found.alias} is {found.name}:{found.version}{kept}")


@command.command("list")
@click.argument("name", shell_complete=model_names)
@json_option
def list_aliases(name: str, as_json: bool) -> None:
    """The aliases of a model."""
    with workspace() as client:
        found = client.models.aliases(name)
    columns: dict[str, Callable[[ModelAlias], object]] = {
        "alias": lambda a: f"{a.name}@{a.alias}",
        "version": lambda a: a.version,
        "protected": lambda a: "yes" if a.protected else "",
        "set": lambda a: ago(a.updated_at),
        "by": lambda a: a.updated_by,
    }
    print_items(found, columns, empty=f"No aliases yet: hedgerow model alias set {name} ALIAS", as_json=as_json)


@command.command("delete")
@click.argument("name", shell_complete=model_names)
@click.argument("alias_name", metavar="ALIAS")
@json_option
def delete_alias(name: str, alias_name: str, as_json: bool) -> None:
    """Take ALIAS away; the version that it names stays."""
    with workspace() as client:
        client.models.delete_alias(name, alias_name)
    if as_json:
        print_json({"deleted": f"{name}@{alias_name}"})
    else:
        click.echo(f"Deleted {name}@{alias_name}")
