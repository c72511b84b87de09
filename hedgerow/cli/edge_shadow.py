"""``hedgerow edge shadow`` and ``hedgerow edge promote``: how new models do beside the old ones, and letting one take over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.edge_plan import show_groups
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import print_json, print_table

if TYPE_CHECKING:
    from hedgerow.sdk.edge_shadows import DeviceShadow

_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)%?")


def _share(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """``1%`` or ``1`` as 0.01."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None or float(found[1]) > 100:
        raise click.BadParameter(f"{text!r} is no percentage from 0% to 100%")
    return float(found[1]) / 100


@click.command("shadow")
@click.argument("name", shell_complete=complete.edge_deployments)
@click.argument("module", required=False)
@json_option
def shadow_command(name: str, module: str | None, as_json: bool) -> None:
    """How the shadows of an edge deployment's modules do, device by device."""
    with workspace() as client:
        found = client.edge.shadows(name, module)
    if as_json:
        print_json(found)
        return
    columns = ("device", "module", "shadow", "state", "compared", "different", "failed", "dropped", "worst", "p50", "shadow p50")
    rows = [(one.device, one.module, one.image, _state(one), *_figures(one)) for one in found]
    print_table(columns, rows, "No device runs a shadow of this deployment.")
    for one in found:
        if one.status is not None and one.status.state != "running":
            click.echo(f"{one.device}: {one.status.reason}", err=True)


def _state(shadow: DeviceShadow) -> str:
    state = shadow.status.state if shadow.status else "not reported yet"
    return state if shadow.online else f"{state} (offline)"


def _figures(shadow: DeviceShadow) -> tuple[object, ...]:
    told = shadow.status
    if told is None:
        return ("",) * 7
    worst = "" if told.worst_difference is None else f"{told.worst_difference:.3g}"
    counts = (told.compared, told.different, told.failed, told.dropped)
    return (*counts, worst, _milliseconds(told.latency_p50_s), _milliseconds(told.shadow_latency_p50_s))


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.3g} ms"


@click.command("promote")
@click.argument("name", shell_complete=complete.edge_deployments)
@click.argument("module")
@click.option(
    "--max-different",
    callback=_share,
    metavar="PERCENT",
    default="1%",
    show_default=True,
    help="Share of compared requests that may differ or fail.",
)
@click.option("--min-compared", type=click.IntRange(0), default=100, show_default=True, help="Requests that must be compared.")
@click.option("--force", is_flag=True, help="Whatever was compared.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say which steps the devices would take.")
@json_option
def promote_command(
    name: str, module: str, max_different: float, min_compared: int, force: bool, dry_run: bool, as_json: bool
) -> None:
    """Make a module's shadow the module, on all devices of an edge deployment; each keeps a way back, as with any update."""
    from hedgerow.sdk.edge_shadows import why_not

    with workspace() as client:
        if dry_run:
            plan = client.edge.plan_promotion(name, module)
            problem = "" if force else why_not(client.edge.shadows(name, module), max_different, min_compared)
            if problem:
                click.echo(f"It would be refused: {problem}.", err=True)
            if as_json:
                print_json(plan)
            else:
                show_groups(name, plan)
            return
        stored = client.edge.promote(name, module, max_different=max_different, min_compared=min_compared, force=force)
    if as_json:
        print_json(stored)
    else:
        click.echo(f"Promoted: module {module} of {name} is {stored.modules[module].image} (revision {stored.revision})")
