"""``hedgerow agent``: the device side."""

from __future__ import annotations

import click

from hedgerow.cli.start import become


@click.command("agent", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def command(options: tuple[str, ...]) -> None:
    """Run the edge agent, look at it, keep it as a service. ``hedgerow agent --help`` lists its commands."""
    become("edge_agent", options or ["--help"], needs="paho", extra="edge", what="The edge agent")
