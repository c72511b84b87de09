"""``hedgerow model``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli.options import json_option, limit_option, tag_option, workspace
from hedgerow.cli.output import ago, pairs, print_items, print_json, print_record, print_table, short, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.model import ModelManifest


@click.group("model")
def command() -> None:
    """Register and look at models."""


@command.command()
@click.argument("name")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--run", "run_id", metavar="ID", help="Register outputs of this run; or, with PATHs, the run that they came from.")
@click.option("--path", "inside", default="", metavar="FOLDER", help="With --run alone: only this folder of the outputs.")
@click.option("--framework", default="custom", show_default=True, help="What made it: onnx, sklearn, …")
@click.option("--description", default="", help="A sentence about it.")
@tag_option
@json_option
def register(
    name: str,
    paths: tuple[Path, ...],
    run_id: str | None,
    inside: str,
    framework: str,
    description: str,
    tags: dict[str, str],
    as_json: bool,
) -> None:
    """Register files, folders or a run's outputs as the next version of NAME."""
    if not paths and not run_id:
        raise click.UsageError("Give PATHs, or --run ID to register what that run left.")
    with workspace() as client:
        if paths:
            manifest = client.models.register(
                name, *paths, tags=tags, framework=framework, description=description, run_id=run_id
            )
        else:
            run = client.runs.get(run_id or "")
            manifest = client.models.register_outputs(name, run, inside, tags=tags, framework=framework, description=description)
    if as_json:
        print_json(manifest)
    else:
        click.echo(f"Registered {manifest.name}:{manifest.version} ({len(manifest.files)} files, {short(manifest.digest)})")


@command.command("list")
@click.option("--name", help="Only this model's versions.")
@limit_option
@json_option
def list_models(name: str | None, limit: int, as_json: bool) -> None:
    """Newest first."""
    with workspace() as client:
        items = client.models.list(name, limit).items
    columns: dict[str, Callable[[ModelManifest], object]] = {
        "model": lambda m: f"{m.name}:{m.version}",
        "framework": lambda m: m.framework,
        "size": lambda m: size(sum(file.size_bytes for file in m.files)),
        "tags": lambda m: pairs(m.tags),
        "digest": lambda m: short(m.digest),
        "registered": lambda m: ago(m.created_at),
    }
    print_items(items, columns, empty="No models yet: hedgerow model register NAME PATH", as_json=as_json)


@command.command()
@click.argument("reference")
@json_option
def show(reference: str, as_json: bool) -> None:
    """Everything about one version."""
    with workspace() as client:
        manifest = client.models.get(reference)
    if as_json:
        print_json(manifest)
        return
    print_record(
        {
            "model": f"{manifest.name}:{manifest.version}",
            "digest": manifest.digest,
            "framework": manifest.framework,
            "description": manifest.description,
            "tags": pairs(manifest.tags),
            "run": manifest.run_id,
            "registered": manifest.created_at.isoformat(),
        }
    )
    print_table(("file", "size", "digest"), [(f.path, size(f.size_bytes), f.digest) for f in manifest.files], "")


@command.command()
@click.argument("reference")
@click.option(
    "-o", "--output", "folder", default=".", type=click.Path(path_type=Path, file_okay=False), help="Folder to write to."
)
def download(reference: str, folder: Path) -> None:
    """Write the model's files, verified."""
    with workspace() as client:
        for path in client.models.download(reference, folder):
            click.echo(path)


@command.command()
@click.argument("reference")
def delete(reference: str) -> None:
    """Refused while an image is made of it."""
    with workspace() as client:
        client.models.delete(reference)
    click.echo(f"Deleted {reference}")
