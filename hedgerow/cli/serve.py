"""``hedgerow serve``."""

from __future__ import annotations

import click

from hedgerow.cli.start import become


@click.command("serve", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def command(options: tuple[str, ...]) -> None:
    """Score one model, script or image on this machine. ``hedgerow serve --help`` lists the settings."""
    become("runtime", options, needs="onnxruntime", extra="runtime", what="hedgerow serve")
