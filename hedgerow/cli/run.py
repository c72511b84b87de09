"""``hedgerow run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click
import msgspec

from hedgerow.cli import complete
from hedgerow.cli.options import FILTER, json_option, key_values, limit_option, output_option, workspace
from hedgerow.cli.output import ago, follow, pairs, print_items, print_json, print_page, print_record, print_table, size
from hedgerow.contracts.names import SECRET_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.work import MetricPoint, Run, RunState


@click.group("run")
def command() -> None:
    """Recorded training runs."""


# What stands behind SCRIPT is for the script, also when an option of ours has that name.
@command.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--experiment", "-e", required=True, metavar="NAME", help="What the run belongs to.")
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    show_default="the script's own",
    help="Folder to snapshot.",
)
@click.option(
    "--variable",
    "variables",
    multiple=True,
    callback=key_values,
    metavar="KEY=VALUE",
    help="An environment variable for the script; repeatable.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    callback=key_values,
    metavar="KEY=NAME",
    shell_complete=complete.secret_pairs,
    help="An environment variable with the value of the secret NAME, which no record shows; repeatable.",
)
@click.option(
    "--data",
    "data",
    multiple=True,
    callback=key_values,
    metavar="NAME=PATH",
    help="A file or folder that the script reads, or NAME=sha256:…; recorded by digest, not sent; repeatable.",
)
@click.option("--no-commit", is_flag=True, help="Do not record the git commit of the folder.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@json_option
@click.argument("script", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit(
    experiment: str,
    source: Path | None,
    variables: dict[str, str],
    secrets: dict[str, str],
    data: dict[str, str],
    no_commit: bool,
    detach: bool,
    as_json: bool,
    script: Path,
    arguments: tuple[str, ...],
) -> None:
    """Snapshot the folder and run SCRIPT in it, recorded."""
    folder = (source or script.parent).resolve()
    if not script.resolve().is_relative_to(folder):
        raise click.BadParameter(f"{script} does not lie in the folder {folder}, which is what is run", param_hint="SCRIPT")
    given = _variables(variables, secrets)
    with workspace() as client:
        path = script.resolve().relative_to(folder).as_posix()
        commit: Literal["git"] | None = None if no_commit else "git"
        run = client.runs.submit(experiment, folder, path, arguments, given, data=data, commit=commit)
        if not detach:
            follow(client, run.activity_id, f"run {run.id}", quiet=as_json)
            run = client.runs.get(run.id)
    if as_json:
        print_json(run)
    else:
        click.echo(f"Run {run.id} {run.state} {_metrics(run)}".rstrip())


def _variables(variables: dict[str, str], secrets: dict[str, str]) -> dict[str, str]:
    if both := sorted(variables.keys() & secrets.keys()):
        raise click.UsageError(f"{both[0]!r} is given by --variable and by --secret; leave one of them out.")
    if unnamed := sorted(key for key, name in secrets.items() if not name):
        raise click.UsageError(f"--secret {unnamed[0]}= names no secret; see: hedgerow secret list")
    return {**variables, **{key: f"{SECRET_PREFIX}{name}" for key, name in secrets.items()}}


@command.command("list")
@click.option("--experiment", "-e", metavar="NAME", type=FILTER, help="Only of this one; 'churn-*': of names that begin so.")
@click.option("--state", type=click.Choice(["queued", "running", "succeeded", "failed", "cancelled"]), help="Only in this state.")
@limit_option
@json_option
def list_runs(experiment: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """Newest first."""
    with workspace() as client:
        page = client.runs.list(experiment, limit, state=cast("RunState | None", state))
    columns: dict[str, Callable[[Run], object]] = {
        "run": lambda r: r.id,
        "experiment": lambda r: r.experiment,
        "state": lambda r: r.state,
        "metrics": lambda r: _metrics(r),
        "created": lambda r: ago(r.created_at),
    }
    empty = "No run fits." if experiment or state else "No runs yet: hedgerow run submit --experiment E SCRIPT"
    print_page(page, limit, columns, empty=empty, as_json=as_json)


def _commit(run: Run) -> str:
    if run.source is None:
        return ""
    beside = "with changes beside it" if run.source.dirty else ""
    return " ".join(part for part in (run.source.commit, run.source.branch, run.source.repository, beside) if part)


def _metrics(run: Run) -> str:
    return pairs({name: f"{value:g}" for name, value in run.metrics.items()})


@command.command()
@click.argument("run_id", shell_complete=complete.runs)
@json_option
def show(run_id: str, as_json: bool) -> None:
    """A run with its metrics, parameters and outputs."""
    with workspace() as client:
        run = client.runs.get(run_id)
    if as_json:
        print_json(run)
        return
    print_record(
        {
            "run": run.id,
            "experiment": run.experiment,
            "state": run.state,
            "command": " ".join([run.script, *run.arguments]),
            "snapshot": run.snapshot_digest,
            "commit": _commit(run),
            "data": " ".join(f"{read.name}@{read.digest}" for read in run.data),
            "parameters": pairs(run.parameters),
            "metrics": _metrics(run),
            "problem": run.problem.message if run.problem else None,
        }
    )
    print_table(("output", "size"), [(f.path, size(f.size_bytes)) for f in run.outputs], "No outputs.")


@command.command()
@click.argument("run_id", shell_complete=complete.runs)
@json_option
def metrics(run_id: str, as_json: bool) -> None:
    """Every logged point."""
    with workspace() as client:
        points = client.runs.metrics(run_id)
    columns: dict[str, Callable[[MetricPoint], object]] = {
        "metric": lambda p: p.name,
        "step": lambda p: p.step,
        "value": lambda p: f"{p.value:g}",
    }
    print_items(points, columns, empty="No metrics.", as_json=as_json)


@command.command()
@click.argument("run_id", shell_complete=complete.runs)
@json_option
def logs(run_id: str, as_json: bool) -> None:
    """What the script printed; follows while it runs. With --json one document a line."""
    with workspace() as client:
        for event in client.activities.follow(client.runs.get(run_id).activity_id):
            if event.log:
                click.echo(msgspec.json.encode(event) if as_json else event.log)


@command.command()
@click.argument("run_id", shell_complete=complete.runs)
@json_option
def cancel(run_id: str, as_json: bool) -> None:
    """Ask the run to stop."""
    with workspace() as client:
        activity = client.activities.cancel(client.runs.get(run_id).activity_id)
    if as_json:
        print_json(activity)
    else:
        click.echo(f"Run {run_id}: {'cancelled' if activity.state == 'cancelled' else 'asked to stop'}")


@command.command()
@click.argument("run_id", shell_complete=complete.runs)
@output_option
@json_option
def download(run_id: str, folder: Path, as_json: bool) -> None:
    """Write what the run left in its outputs, verified."""
    with workspace() as client:
        paths = client.runs.download(run_id, folder)
    if as_json:
        print_json([str(path) for path in paths])
        return
    for path in paths:
        click.echo(path)
