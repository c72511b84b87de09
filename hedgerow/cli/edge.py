"""``hedgerow edge``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.input import parse_json, read_text
from hedgerow.cli.options import FILTER, json_option, limit_option, workspace
from hedgerow.cli.output import count, print_json, print_page, print_record, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api import EdgePlan
    from hedgerow.contracts.edge import EdgeDeployment


_DRY_RUN = "Change nothing; say which modules would change on which devices."


@click.group("edge")
def command() -> None:
    """Deploy modules to devices."""


@command.command()
@click.argument("name")
@click.option(
    "--manifest", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), help="JSON or TOML: modules."
)
@click.option("--target", required=True, metavar="CONDITION", help="Which devices: *, deviceId='x', tags.site='north' AND …")
@click.option("--priority", default=0, show_default=True, type=int, help="Of those that match a device the highest wins.")
@click.option("--dry-run", is_flag=True, help=_DRY_RUN)
@json_option
def deploy(name: str, manifest: Path, target: str, priority: int, dry_run: bool, as_json: bool) -> None:
    """Create or replace an edge deployment."""
    from hedgerow.contracts.document import convert
    from hedgerow.contracts.edge import EdgeDeployment

    document = convert({**_read(manifest), "name": name, "target": target, "priority": priority}, EdgeDeployment)
    with workspace() as client:
        if dry_run:
            plan = client.edge.plan(document)
            _show_plan(plan, as_json=as_json)
            click.echo(f"It is for {count(len(plan.targeted), 'device')}.", err=True)
            return
        stored = client.edge.deploy(document)
    if as_json:
        print_json(stored)
    else:
        click.echo(f"Deployed {name} (revision {stored.revision}) to devices where {target}")


def _show_plan(plan: EdgePlan, *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    rows = [
        (c.device, c.edge_deployment or "none", " ".join(c.add), " ".join(c.change), " ".join(c.remove), c.problem)
        for c in plan.changes
    ]
    print_table(("device", "would have", "new", "changed", "removed", "problem"), rows, "Nothing would change.")


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
@click.option("--name", type=FILTER, shell_complete=complete.edge_deployments, help="Only this; 'line-*': names that begin so.")
@limit_option
@json_option
def list_deployments(name: str | None, limit: int, as_json: bool) -> None:
    """By name."""
    with workspace() as client:
        page = client.edge.list(limit, name=name)
    columns: dict[str, Callable[[EdgeDeployment], object]] = {
        "deployment": lambda d: d.name,
        "revision": lambda d: d.revision,
        "priority": lambda d: d.priority,
        "target": lambda d: d.target,
        "modules": lambda d: " ".join(d.modules),
    }
    empty = "No edge deployment fits." if name else "None yet: hedgerow edge deploy NAME --manifest F --target COND"
    print_page(page, limit, columns, empty=empty, as_json=as_json)


@command.command()
@click.argument("name", shell_complete=complete.edge_deployments)
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
@click.argument("name", shell_complete=complete.edge_deployments)
@click.option("--dry-run", is_flag=True, help=_DRY_RUN)
@yes_option
@json_option
def delete(name: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove an edge deployment; its devices get the next one that matches, or none."""
    with workspace() as client:
        if dry_run:
            _show_plan(client.edge.plan_delete(name), as_json=as_json)
            return
        meaning = "; its devices get the next one that matches, or none"
        take_away(name, lambda: client.edge.delete(name), meaning=meaning, yes=yes, as_json=as_json)
