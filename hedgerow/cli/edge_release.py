"""``hedgerow edge agent-release``: releases of the agent that edge deployments can ask for."""

from __future__ import annotations

from pathlib import Path

import click

from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import plain, print_json
from hedgerow.cli.whole_help import WholeHelp

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("agent-release", cls=WholeHelp)
def command() -> None:
    """Releases of the agent itself, for the devices of an edge deployment."""


@command.command()
@click.argument("wheel", type=_FILE)
@json_option
def upload(wheel: Path, as_json: bool) -> None:
    """Bring a wheel of Hedgerow into the workspace, from where devices fetch it.

    It stays as long as an edge deployment names it; before that, as long as any upload that nothing uses.
    """
    with workspace() as client:
        release = client.edge.upload_agent_release(wheel)
    if as_json:
        print_json(release)
        return
    click.echo(f"Uploaded release {plain(release.version)} of the agent. In a manifest:\n")
    click.echo(f'[agent]\nversion = "{plain(release.version)}"\nwheel = "{release.wheel}"')
