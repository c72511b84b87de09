"""``hedgerow up``."""

from __future__ import annotations

import click

from hedgerow.cli.start import become


@click.command("up", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def command(options: tuple[str, ...]) -> None:
    """Start the control plane and stay in front; Ctrl-C stops it. ``hedgerow up --help`` lists its settings."""
    where = click.get_current_context().find_root().obj
    chosen = ["--workspace", where] if where and "--workspace" not in options else []
    become("registry.up", [*chosen, *options], needs="sqlalchemy", extra="server", what="hedgerow up")
