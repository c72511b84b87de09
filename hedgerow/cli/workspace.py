"""``hedgerow workspace``: contexts, like Docker's."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hedgerow.cli.options import json_option
from hedgerow.cli.output import print_json, print_table
from hedgerow.sdk.contexts import Context, ContextsFile, load_contexts, save_contexts


@click.group("workspace")
def command() -> None:
    """Choose which workspace commands talk to."""


@command.command()
@click.argument("name")
@click.argument("where", metavar="URL|FOLDER")
@click.option("--token", help="Token for a URL; a folder of this machine needs none.")
def create(name: str, where: str, token: str | None) -> None:
    """Remember a workspace under NAME, and use it if it is the first."""
    known = load_contexts(os.environ)
    place = where if where.startswith(("http://", "https://")) else str(Path(where).absolute())
    others = [context for context in known.contexts if context.name != name]
    contexts = [*others, Context(name=name, where=place, token=token)]
    save_contexts(ContextsFile(in_use=known.in_use or name, contexts=contexts), os.environ)
    click.echo(f"{name} is {place}")


@command.command("list")
@json_option
def list_contexts(as_json: bool) -> None:
    """All remembered workspaces; * marks the one in use."""
    known = load_contexts(os.environ)
    if as_json:
        print_json([{"name": c.name, "where": c.where, "in_use": c.name == known.in_use} for c in known.contexts])
        return
    rows = [("*" if c.name == known.in_use else "", c.name, c.where) for c in known.contexts]
    print_table(("", "name", "where"), rows, "None: commands use ./hedgerow-workspace, HEDGEROW_WORKSPACE or HEDGEROW_URL.")


@command.command()
@click.argument("name")
def use(name: str) -> None:
    """Talk to NAME from now on."""
    known = load_contexts(os.environ)
    if name not in {context.name for context in known.contexts}:
        raise click.ClickException(f"There is no workspace {name!r}. See: hedgerow workspace list")
    save_contexts(ContextsFile(in_use=name, contexts=known.contexts), os.environ)
    click.echo(f"Using {name}")
