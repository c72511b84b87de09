"""``hedgerow env``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli.input import read_text
from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import ago, print_items, print_json, print_record, short

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.environment import Environment


@click.group("env")
def command() -> None:
    """Environments for scoring scripts."""


@command.command()
@click.argument("name")
@click.option(
    "--requirements", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), help="requirements.txt"
)
@click.option("--python", "python_version", default="3.11", show_default=True)
@json_option
def create(name: str, requirements: Path, python_version: str, as_json: bool) -> None:
    """A new version of NAME."""
    lines = [line.split(" #")[0].strip() for line in read_text(requirements).splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    with workspace() as client:
        environment = client.environments.create(name, wanted, python_version=python_version)
    if as_json:
        print_json(environment)
    else:
        click.echo(f"Created {environment.name}:{environment.version} ({len(wanted)} requirements)")


@command.command("list")
@limit_option
@json_option
def list_environments(limit: int, as_json: bool) -> None:
    """Newest first."""
    with workspace() as client:
        items = client.environments.list(limit).items
    columns: dict[str, Callable[[Environment], object]] = {
        "environment": lambda e: f"{e.name}:{e.version}",
        "python": lambda e: e.python_version,
        "packages": lambda e: len(e.requirements),
        "digest": lambda e: short(e.digest),
        "created": lambda e: ago(e.created_at),
    }
    print_items(items, columns, empty="No environments yet: hedgerow env create NAME --requirements F", as_json=as_json)


@command.command()
@click.argument("reference")
@json_option
def show(reference: str, as_json: bool) -> None:
    """Everything about one version."""
    with workspace() as client:
        environment = client.environments.get(reference)
    if as_json:
        print_json(environment)
        return
    print_record(
        {
            "environment": f"{environment.name}:{environment.version}",
            "python": environment.python_version,
            "digest": environment.digest,
            "requirements": ", ".join(environment.requirements),
        }
    )
