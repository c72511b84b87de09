"""``hedgerow edge plan``: the steps that devices would take, before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.edge_manifest import FILE, placing_options, print_findings, read_deployment
from hedgerow.cli.edge_rollout import print_foretold, rollout_options
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import count, plain, print_json, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.api_fleet import EdgeChange, EdgePlan, EdgePlanGroup, PlannedStep
    from hedgerow.contracts.edge import EdgeDeployment

_GROUPS = 20


@click.command("plan")
@click.argument("manifest", type=FILE)
@click.option("--name", help="The deployment that it would be.  [default: the manifest's, or its file's name]")
@click.option("--device", shell_complete=complete.devices, help="Only this device, step by step.")
@placing_options
@rollout_options
@json_option
def command(
    manifest: Path,
    name: str | None,
    device: str | None,
    target: str | None,
    priority: int | None,
    variables: dict[str, str],
    rolled: Callable[[EdgeDeployment], EdgeDeployment],
    as_json: bool,
) -> None:
    """Say what deploying a manifest would do, step by step; change nothing."""
    from hedgerow.contracts.iot_edge.names import our_name

    deployment, findings = read_deployment(manifest, name, target, priority, variables)
    if name is None and deployment.name == "deployment":
        deployment, findings = read_deployment(manifest, our_name(manifest.name.split(".")[0]), target, priority, variables)
    with workspace() as client:
        plan = client.edge.plan_steps(rolled(deployment), device)
    if as_json:
        print_json(plan)
        return
    print_findings([one for one in findings if one.level != "note"], to_error=True)
    if device is not None:
        _show_device(device, plan)
    else:
        show_groups(deployment.name, plan)


def _show_device(device: str, plan: EdgePlan) -> None:
    change = next((one for one in plan.changes if one.device == device), None)
    if device not in plan.targeted:
        click.echo(f"The target does not match {device}.")
    if change is None:
        click.echo(f"Nothing would change on {device}.")
        return
    click.echo(f"{device} would run {_source(change)} ({change.basis or 'planned'}):")
    if change.rollout_group:
        click.echo(f"  it is in {plain(change.rollout_group)} of the rollout")
    if change.problem:
        click.echo(f"  it keeps what it has: {plain(change.problem)}")
    _show_steps(change.steps)


def show_groups(name: str, plan: EdgePlan) -> None:
    """The steps of all devices, told once for those that take the same."""
    click.echo(f"{name} is for {count(len(plan.targeted), 'device')}.")
    print_foretold(plan)
    if not plan.groups:
        click.echo("Nothing would change.")
    for group in plan.groups[:_GROUPS]:
        click.echo(f"\n{count(group.count, 'device')}: {_names(group)}")
        if group.problem:
            click.echo(f"  keeps what it has: {plain(group.problem)}")
        _show_steps(group.steps)
    if len(plan.groups) > _GROUPS:
        click.echo(f"\n… and {len(plan.groups) - _GROUPS} more kinds of plans: --json has them all, --device D one of them.")


def _show_steps(steps: list[PlannedStep]) -> None:
    width = max((len(step.action) + len(step.module or "") for step in steps), default=0) + 1
    for number, step in enumerate(steps, 1):
        head = f"{step.action} {step.module or ''}".strip()
        click.echo(f"  {number:2}. {plain(head).ljust(width)}  {plain(_words(step))}")


def _words(step: PlannedStep) -> str:
    if step.image is None:
        return step.text
    if step.size_bytes is None:
        return f"{step.image} (size not known here)"
    new = "" if step.new_bytes is None else f", {size(step.new_bytes)} of it new"
    return f"{step.image} ({size(step.size_bytes)}{new})"


def _names(group: EdgePlanGroup) -> str:
    return " ".join(group.devices) + (" …" if group.count > len(group.devices) else "")


def _source(change: EdgeChange) -> str:
    base = change.edge_deployment or "nothing"
    return f"{base} with {' '.join(change.layers)}" if change.layers else base
