"""``hedgerow edge lint``: the traps of a manifest, without asking anybody."""

from __future__ import annotations

from pathlib import Path

import click

from hedgerow.cli.edge_manifest import FILE, placing_options, print_findings
from hedgerow.cli.input import read_text
from hedgerow.cli.options import json_option
from hedgerow.cli.output import count, print_json


@click.command("lint")
@click.argument("manifest", type=FILE)
@placing_options
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--quiet", "-q", is_flag=True, help="Leave the notes out.")
@json_option
def command(
    manifest: Path,
    target: str | None,
    priority: int | None,
    variables: dict[str, str],
    strict: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Name the traps of a manifest (IoT Edge JSON, TOML, YAML, JSON). Exit code 1 if there are errors."""
    from hedgerow.sdk.edge_lint.lint import lint_text

    everything = lint_text(read_text(manifest), manifest, target=target, priority=priority, variables=variables)
    shown = [one for one in everything if not (quiet and one.level == "note")]
    errors = sum(one.level == "error" for one in everything)
    warnings = sum(one.level == "warning" for one in everything)
    if as_json:
        print_json(shown)
    else:
        print_findings(shown)
        notes = len(everything) - errors - warnings
        click.echo(f"{count(errors, 'error')}, {count(warnings, 'warning')}, {count(notes, 'note')}", err=True)
    if errors or (strict and warnings):
        click.get_current_context().exit(1)
