"""``hedgerow backup``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli.options import json_option
from hedgerow.cli.output import plain, print_json, size

if TYPE_CHECKING:
    from hedgerow.sdk.backup import Progress, SavedBackup
    from hedgerow.sdk.client import Client


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--without-blobs", is_flag=True, help="Records and telemetry only, for contents that are kept otherwise.")
@click.option("--with-keys", is_flag=True, help="Also the workspace's keys: whoever has the file is the workspace then.")
@click.option("--accept-lost", is_flag=True, help="Keep the backup although the workspace itself lacks contents.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@json_option
def command(file: Path, without_blobs: bool, with_keys: bool, accept_lost: bool, force: bool, as_json: bool) -> None:
    """Save the whole workspace into FILE, while everything goes on.

    FILE is there only if it is whole. A workspace that does not run is started for the time of its backup.
    """
    with _client() as client, _progress(quiet=as_json) as on_progress:
        saved = client.backups.save(
            file,
            blobs=not without_blobs,
            keys=with_keys,
            replace=force,
            accept_lost=accept_lost,
            on_progress=on_progress,
        )
    if as_json:
        print_json(saved)
    else:
        _show(saved)


def _show(saved: SavedBackup) -> None:
    rows = sum(saved.end.rows.values())
    click.echo(f"{saved.file}: {rows} rows, {saved.end.blobs} blobs, {size(saved.size_bytes)}")
    for lost in saved.end.lost:
        click.echo(f"Lost: {lost.digest}: {plain(lost.problem)}", err=True)
    if not saved.header.has_keys:
        click.echo("It holds no keys: keep a copy of the workspace's keys folder elsewhere, once.", err=True)


@contextmanager
def _client() -> Iterator[Client]:
    """Joins what runs; starts what does not only where there is something to back up."""
    from hedgerow.sdk.connect import choose_target, connect
    from hedgerow.sdk.errors import ServerUnreachable

    where = click.get_current_context().find_root().obj
    try:
        client = connect(where, start=False)
    except ServerUnreachable:
        folder = choose_target(where, None, os.environ, Path.cwd()).folder
        if folder is None or not (folder / "format.json").is_file():
            raise
        if not (folder / "records.db").is_file() and not os.environ.get("HEDGEROW_DATABASE"):
            raise click.ClickException(
                f"The records of {folder} are not in it. Say where they are: HEDGEROW_DATABASE=postgresql://…"
            ) from None
        client = connect(where)
    with client:
        yield client


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress | None]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("backing up"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda arrived, total: shown.update(task, completed=arrived, total=max(total, arrived) or None)
