"""``hedgerow workspace``: contexts, like Docker's."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.options import json_option
from hedgerow.cli.output import print_json, print_table
from hedgerow.sdk.contexts import Context, ContextsFile, load_contexts, save_contexts


def _names(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    return [context.name for context in load_contexts(os.environ).contexts if context.name.startswith(typed)]


@click.group("workspace")
def command() -> None:
    """Choose which workspace commands talk to."""


@command.command()
@click.argument("name")
@click.argument("where", metavar="URL|FOLDER")
@click.option("--token", help="Token for a URL; a folder of this machine needs none.")
@json_option
def create(name: str, where: str, token: str | None, as_json: bool) -> None:
    """Remember a workspace under NAME, and use it if it is the first."""
    known = load_contexts(os.environ)
    place = where if where.startswith(("http://", "https://")) else str(Path(where).absolute())
    others = [context for context in known.contexts if context.name != name]
    contexts = [*others, Context(name=name, where=place, token=token)]
    changed = ContextsFile(in_use=known.in_use or name, contexts=contexts)
    save_contexts(changed, os.environ)
    if as_json:
        print_json(_shown(contexts[-1], changed))
    else:
        click.echo(f"{name} is {place}")


@command.command("list")
@json_option
def list_contexts(as_json: bool) -> None:
    """All remembered workspaces; * marks the one in use."""
    known = load_contexts(os.environ)
    if as_json:
        print_json([_shown(context, known) for context in known.contexts])
        return
    rows = [("*" if c.name == known.in_use else "", c.name, c.where) for c in known.contexts]
    print_table(("", "name", "where"), rows, "None: commands use ./hedgerow-workspace, HEDGEROW_WORKSPACE or HEDGEROW_URL.")


@command.command()
@click.argument("name", shell_complete=_names)
@json_option
def use(name: str, as_json: bool) -> None:
    """Talk to NAME from now on."""
    known = load_contexts(os.environ)
    chosen = _known(name, known)
    changed = ContextsFile(in_use=name, contexts=known.contexts)
    save_contexts(changed, os.environ)
    if as_json:
        print_json(_shown(chosen, changed))
    else:
        click.echo(f"Using {name}")


@command.command()
@click.argument("name", shell_complete=_names)
@yes_option
@json_option
def delete(name: str, yes: bool, as_json: bool) -> None:
    """Forget NAME and its token on this machine; the workspace itself stays as it is."""
    known = load_contexts(os.environ)
    _known(name, known)

    def forget() -> None:
        others = [context for context in known.contexts if context.name != name]
        save_contexts(ContextsFile(in_use=None if known.in_use == name else known.in_use, contexts=others), os.environ)

    meaning = " from the remembered workspaces (the workspace itself stays)"
    take_away(name, forget, meaning=meaning, yes=yes, as_json=as_json)


def _known(name: str, contexts: ContextsFile) -> Context:
    found = next((context for context in contexts.contexts if context.name == name), None)
    if found is None:
        raise click.ClickException(f"There is no workspace {name!r}. See: hedgerow workspace list")
    return found


def _shown(context: Context, contexts: ContextsFile) -> dict[str, object]:
    """Without its token."""
    return {"name": context.name, "where": context.where, "in_use": context.name == contexts.in_use}
