"""What the commands of ``hedgerow edge`` that read a manifest have in common: its options, and the findings on paper."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli.input import read_text
from hedgerow.cli.options import F, key_values
from hedgerow.cli.output import count, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hedgerow.contracts.edge import EdgeDeployment
    from hedgerow.contracts.edge_finding import Finding

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def placing_options(function: F) -> F:
    """``--target``, ``--priority`` and ``--variable``: what may stand in the manifest, or comes with the command."""

    @click.option("--target", metavar="CONDITION", help="Which devices: *, deviceId='x', tags.site='north' AND …")
    @click.option("--priority", type=int, help="Of those that match a device the highest wins.  [default: the manifest's, or 0]")
    @click.option(
        "--variable",
        "variables",
        multiple=True,
        callback=key_values,
        metavar="NAME=VALUE",
        help="A variable of a deployment template; repeatable.",
    )
    @functools.wraps(function)
    def placed(**values: object) -> object:
        return function(**values)

    return placed


def read_deployment(
    path: Path, name: str | None, target: str | None, priority: int | None, variables: Mapping[str, str]
) -> tuple[EdgeDeployment, list[Finding]]:
    """The deployment in a file of any format. Raises HedgerowError, ClickException."""
    from hedgerow.sdk.edge_files import read_manifest_text

    return read_manifest_text(read_text(path), path, name, target, priority, variables)


def tell_traps(
    path: Path, target: str | None, priority: int | None, variables: Mapping[str, str], *, refuse: bool, quiet: bool
) -> None:
    """What lint says of a manifest that is to be deployed, on standard error; ``quiet``: errors only.

    Raises ClickException for errors, if it is to ``refuse``.
    """
    from hedgerow.sdk.edge_lint.lint import lint_text

    found = lint_text(read_text(path), path, target=target, priority=priority, variables=variables)
    errors = [one for one in found if one.level == "error"]
    print_findings(errors if quiet else [one for one in found if one.level != "note"], to_error=True)
    if errors and refuse:
        it = "It" if len(errors) == 1 else "They"
        raise click.ClickException(
            f"Nothing was deployed: {path} has {count(len(errors), 'error')}. {it} can be passed over with --no-lint."
        )


def print_findings(findings: Iterable[Finding], *, to_error: bool = False) -> None:
    """One a line: level, place, what it is, what to do."""
    for one in findings:
        remedy = f" {one.remedy}" if one.remedy else ""
        dot = "" if one.message.endswith((".", "?", "!")) else "."
        click.echo(plain(f"{one.level:8}{one.place}: {one.message}{dot}{remedy}"), err=to_error)
