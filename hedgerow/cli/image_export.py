"""``hedgerow image export`` and ``hedgerow image load``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hedgerow.cli import complete
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import print_json, short, size, transfer


@click.command()
@click.argument("reference", shell_complete=complete.images)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--platform", metavar="OS/ARCH", help="Only this platform of an image that has several.")
@click.option("--referrers", is_flag=True, help="With what lies beside the image (bill of materials, proof).")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@json_option
def export(reference: str, file: Path, platform: str | None, referrers: bool, force: bool, as_json: bool) -> None:
    """Write an image into FILE, one tar that `docker load` and OCI tools read; - is standard output.

    With --referrers, OCI tools want to hear which entry of it is the image: oci-archive:FILE:VERSION. Every blob is
    checked. FILE is there only when it is whole; the same content is always the same file.
    """
    if str(file) == "-":
        if as_json:
            raise click.UsageError("Standard output is the image's; leave --json out.")
        if sys.stdout.isatty():
            raise click.UsageError("A terminal cannot show an image: name a FILE, or send standard output elsewhere (| or >).")
        with workspace() as client, transfer(f"exporting {reference}") as on_progress:
            client.images.export(reference, sys.stdout.buffer, platform=platform, referrers=referrers, on_progress=on_progress)
        return
    with workspace() as client, transfer(f"exporting {reference}") as on_progress:
        saved = client.images.export(
            reference, file, platform=platform, replace=force, referrers=referrers, on_progress=on_progress
        )
    if as_json:
        print_json(saved)
    else:
        click.echo(f"{saved.file}: {saved.image} ({size(saved.size_bytes)}, {short(saved.digest)})")


@click.command()
@click.argument("reference", shell_complete=complete.images)
@click.option("--engine", metavar="HOST", help="The engine (unix:///…, tcp://…); DOCKER_HOST if not given.")
@click.option("--platform", metavar="OS/ARCH", help="Another platform than the engine's own.")
@json_option
def load(reference: str, engine: str | None, platform: str | None, as_json: bool) -> None:
    """Load an image into a Docker engine, where it is called NAME:VERSION."""
    with workspace() as client, transfer(f"loading {reference}") as on_progress:
        loaded = client.images.load(reference, engine=engine, platform=platform, on_progress=on_progress)
    if as_json:
        print_json(loaded)
    else:
        click.echo(f"Loaded {loaded.tag} ({short(loaded.id)})")
