"""``hedgerow quickstart``."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli.options import json_option
from hedgerow.cli.output import print_json
from hedgerow.clock import SystemClock
from hedgerow.errors import MissingExtra

if TYPE_CHECKING:
    from hedgerow.cli.quickstart.processes import Place
    from hedgerow.cli.quickstart.story import Story

_DEFAULT_PORTS = {"--port": 8080, "--broker-port": 1883, "--balancer-port": 8090}


@click.command("quickstart")
@click.option("--keep", is_flag=True, help="Leave everything running at the end; --stop ends it.")
@click.option("--stop", is_flag=True, help="End and remove what an earlier quickstart left, and do nothing else.")
@click.option(
    "--folder",
    default="hedgerow-quickstart",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where it works; made and removed again.",
)
@json_option
def command(keep: bool, stop: bool, folder: Path, as_json: bool) -> None:
    """Train, register, build, deploy, score, run on a device: everything once, for real, on this machine."""
    _check_extras()
    from hedgerow.cli.quickstart.processes import only_one, open_place

    with only_one(folder):
        place = open_place(folder, SystemClock())
        if stop:
            place.remove()
            if as_json:
                print_json({"removed": str(folder)})
            else:
                click.echo(f"Nothing of a quickstart is left in {folder}.")
        else:
            _run(place, keep=keep, as_json=as_json)


def _run(place: Place, *, keep: bool, as_json: bool) -> None:
    from hedgerow.cli.quickstart.screen import Screen
    from hedgerow.cli.quickstart.story import STEPS, Story, find_shuttle_data

    # A polite kill is handled like Ctrl-C: everything is ended and removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started_s = place.clock.monotonic_s()
    story = Story(place, Screen(STEPS, place.clock, on_stderr=as_json), os.environ)
    done = False
    try:
        story.tell(_ports(), find_shuttle_data())
        story.figures["total_s"] = place.clock.monotonic_s() - started_s
        if as_json:
            print_json({"did": story.told, "figures": story.figures})
        else:
            _summary(story, place if keep else None)
        done = True
    finally:
        if not (keep and done):
            _clean_up(place, keep_logs=not done)


def _clean_up(place: Place, *, keep_logs: bool) -> None:
    # A second Ctrl-C must not stop the cleaning half-way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place.stop_everything()
    if not keep_logs:
        place.remove()


def _summary(story: Story, kept: Place | None) -> None:
    click.echo()
    width = max(map(len, story.told))
    for name, text in story.told.items():
        click.echo(f"  {click.style(name.ljust(width), bold=True)}  {text}")
    click.echo()
    click.echo(f"Everything above was real, and took {story.figures['total_s']:.0f} s.")
    if kept:
        click.echo("It is still running. Open the page above, and talk to it from here with:")
        click.echo(f"  export HEDGEROW_WORKSPACE={kept.workspace}")
        click.echo("  hedgerow model list; hedgerow service show shuttle; hedgerow telemetry tail")
        click.echo("Stop and remove it with: hedgerow quickstart --stop")
    else:
        click.echo("Now it is stopped and removed; to look around, keep it running with: hedgerow quickstart --keep")


def _check_extras() -> None:
    import importlib.util

    for module in ("sqlalchemy", "onnxruntime", "paho", "skl2onnx"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(what="The quickstart", module=module, extra="all")


def _ports() -> list[str]:
    """The usual ports where they are free, so that links look familiar; free ones where they are not."""
    options: list[str] = []
    for option, port in _DEFAULT_PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                port = 0
        options += [option, str(port)]
    return options
