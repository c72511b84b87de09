"""``hedgerow edge``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete, edge_keys, edge_lint, edge_plan, edge_release, edge_rollout, edge_shadow, edge_sign
from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.edge_manifest import FILE, placing_options, print_findings, read_deployment, tell_traps
from hedgerow.cli.edge_rollout import rollout_options
from hedgerow.cli.edge_show import show_deployment
from hedgerow.cli.options import FILTER, json_option, limit_option, workspace
from hedgerow.cli.output import count, print_json, print_page, print_table
from hedgerow.cli.whole_help import WholeHelp

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api_fleet import EdgeChange, EdgePlan
    from hedgerow.contracts.edge import EdgeDeployment


_DRY_RUN = "Change nothing; say which modules would change on which devices."


@click.group("edge", cls=WholeHelp)
def command() -> None:
    """Deploy modules to devices."""


command.add_command(edge_keys.command)
command.add_command(edge_sign.command)
command.add_command(edge_lint.command)
command.add_command(edge_plan.command)
command.add_command(edge_rollout.command)
command.add_command(edge_release.command)
command.add_command(edge_shadow.shadow_command)
command.add_command(edge_shadow.promote_command)


@command.command()
@click.argument("name")
@click.option("--manifest", required=True, type=FILE, help="TOML, YAML or JSON: modules; or Azure IoT Edge's deployment JSON.")
@placing_options
@rollout_options
@click.option("--wait", is_flag=True, help="Wait for the end of its rollout; exit code 1 unless that succeeds.")
@click.option("--dry-run", is_flag=True, help=_DRY_RUN)
@click.option(
    "--lint/--no-lint", default=True, help="Refuse what `edge lint` calls an error, tell its warnings.  [default: lint]"
)
@json_option
def deploy(
    name: str,
    manifest: Path,
    target: str | None,
    priority: int | None,
    variables: dict[str, str],
    rolled: Callable[[EdgeDeployment], EdgeDeployment],
    wait: bool,
    dry_run: bool,
    lint: bool,
    as_json: bool,
) -> None:
    """Create or replace an edge deployment."""
    document, findings = read_deployment(manifest, name, target, priority, variables)
    document = rolled(document)
    if not document.target and target is None:
        raise click.UsageError("For which devices? Give --target CONDITION, or write target in the manifest.")
    if lint:
        tell_traps(manifest, target, priority, variables, refuse=not dry_run, quiet=as_json)
    elif not as_json:
        print_findings([one for one in findings if one.level != "note"], to_error=True)
    with workspace() as client:
        if dry_run:
            plan = client.edge.plan(document)
            _show_plan(plan, as_json=as_json)
            click.echo(f"It is for {count(len(plan.targeted), 'device')}.", err=True)
            edge_rollout.print_foretold(plan, to_error=True)
            return
        stored = client.edge.deploy(document)
        if as_json:
            print_json(stored)
        else:
            layer = " as a layer" if stored.layered else ""
            click.echo(f"Deployed {name} (revision {stored.revision}){layer} to devices where {stored.target}")
        found = edge_rollout.newest_of(client, stored)
        if found is None or found.revision != stored.revision:
            return
        if not as_json and found.state != "succeeded":
            click.echo(f"It is rolled out in groups. How far it is: hedgerow edge rollout show {name}", err=True)
        if wait:
            edge_rollout.exit_as(edge_rollout.follow(client, name, quiet=as_json))


def _show_plan(plan: EdgePlan, *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    rows = [
        (
            c.device,
            " + ".join([c.edge_deployment or "none", *c.layers]),
            " ".join(c.add),
            " ".join(c.change),
            " ".join(c.remove),
            " ".join(_beside(c)),
            c.problem,
        )
        for c in plan.changes
    ]
    print_table(("device", "would have", "new", "changed", "removed", "besides", "problem"), rows, "Nothing would change.")


def _beside(change: EdgeChange) -> list[str]:
    """What changes without touching a process."""
    named = {"routes": change.routes, "twins": change.twins, "telemetry": change.telemetry, "agent": change.agent}
    return [word for word, changed in named.items() if changed]


@command.command("list")
@click.option("--name", type=FILTER, shell_complete=complete.edge_deployments, help="Only this; 'line-*': names that begin so.")
@limit_option
@json_option
def list_deployments(name: str | None, limit: int, as_json: bool) -> None:
    """By name."""
    with workspace() as client:
        page = client.edge.list(limit, name=name)
        rollouts = {} if as_json else {one.name: edge_rollout.newest_of(client, one) for one in page.items}
    columns: dict[str, Callable[[EdgeDeployment], object]] = {
        "deployment": lambda d: d.name,
        "revision": lambda d: d.revision,
        "priority": lambda d: d.priority,
        "target": lambda d: d.target,
        "kind": lambda d: "layer" if d.layered else "",
        "modules": lambda d: " ".join(d.modules),
        "rollout": lambda d: edge_rollout.in_a_word(rollouts.get(d.name)),
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
        rollout = None if as_json else edge_rollout.newest_of(client, found, always=True)
    if as_json:
        print_json(found)
        return
    show_deployment(found, rollout)


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
