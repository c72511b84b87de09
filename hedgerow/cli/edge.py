"""``hedgerow edge``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli.input import parse_json, read_text
from hedgerow.cli.options import json_option, limit_option, workspace
from hedgerow.cli.output import print_items, print_json, print_record, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.edge import EdgeDeployment


@click.group("edge")
def command() -> None:
    """Deploy modules to devices."""


@command.command()
@click.argument("name")
@click.option(
    "--manifest", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), help="JSON or TOML: modules."
)
@click.option("--target", required=True, metavar="CONDITION", help="Which devices: *, deviceId='x', tags.site='north' AND …")
@click.option("--priority", default=0, show_default=True, type=int)
@json_option
def deploy(name: str, manifest: Path, target: str, priority: int, as_json: bool) -> None:
    """Create or replace an edge deployment."""
    from hedgerow.contracts.document import convert
    from hedgerow.contracts.edge import EdgeDeployment

    document = convert({**_read(manifest), "name": name, "target": target, "priority": priority}, EdgeDeployment)
    with workspace() as client:
        stored = client.edge.deploy(document)
    if as_json:
        print_json(stored)
    else:
        click.echo(f"Deployed {name} (revision {stored.revision}) to devices where {target}")


def _read(manifest: Path) -> dict[str, object]:
    text = read_text(manifest)
    value = _parse_toml(text, manifest) if manifest.suffix == ".toml" else parse_json(text, manifest)
    if not isinstance(value, dict):
        raise click.ClickException(f"{manifest} is not an object. It should hold `modules`.")
    return value


def _parse_toml(text: str, manifest: Path) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise click.ClickException(f"{manifest} is not TOML: {problem}. Correct it.") from None


@command.command("list")
@limit_option
@json_option
def list_deployments(limit: int, as_json: bool) -> None:
    """All edge deployments."""
    with workspace() as client:
        items = client.edge.list(limit).items
    columns: dict[str, Callable[[EdgeDeployment], object]] = {
        "deployment": lambda d: d.name,
        "revision": lambda d: d.revision,
        "priority": lambda d: d.priority,
        "target": lambda d: d.target,
        "modules": lambda d: " ".join(d.modules),
    }
    print_items(items, columns, empty="None yet: hedgerow edge deploy NAME --manifest F --target COND", as_json=as_json)


@command.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """An edge deployment and its modules."""
    with workspace() as client:
        found = client.edge.get(name)
    if as_json:
        print_json(found)
        return
    print_record({"deployment": found.name, "revision": found.revision, "target": found.target, "priority": found.priority})
    rows = [(name, m.kind, m.image or " ".join(m.command), m.restart_policy, m.status) for name, m in found.modules.items()]
    print_table(("module", "kind", "image or command", "restart", "status"), rows, "No modules.")


@command.command()
@click.argument("name")
def delete(name: str) -> None:
    """Remove an edge deployment; its devices get the next one that matches, or none."""
    with workspace() as client:
        client.edge.delete(name)
    click.echo(f"Deleted {name}")
