"""``hedgerow restore``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hedgerow.cli.options import json_option
from hedgerow.cli.start import become

# Said in the environment instead of on the command line: a URL may hold a password, and everybody can read command lines.
_DATABASE = "HEDGEROW_DATABASE"


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--workspace", type=click.Path(path_type=Path), help="Folder to make; absent or empty.")
@click.option(
    "--database", metavar="URL", help="An empty PostgreSQL database instead of SQLite files; better as HEDGEROW_DATABASE."
)
@click.option("--blobs", metavar="URL", help="Where contents are kept, instead of in the folder.")
@click.option("--blobs-endpoint", metavar="URL", help="An S3 server that is not Amazon's.")
@click.option("--keys", type=click.Path(path_type=Path), help="Keys folder of the old workspace, or a backup with keys.")
@click.option("--new-identity", is_flag=True, help="Begin with new keys: every device must be enrolled again.")
@click.option("--revoke-tokens", is_flag=True, help="Refuse every token of people from now on.")
@click.option("--accept-lost", is_flag=True, help="Restore although the backup lacks contents.")
@json_option
def command(
    file: Path,
    workspace: Path | None,
    database: str | None,
    blobs: str | None,
    blobs_endpoint: str | None,
    keys: Path | None,
    new_identity: bool,
    revoke_tokens: bool,
    accept_lost: bool,
    as_json: bool,
) -> None:
    """Make a workspace from the backup FILE: into a folder that does not exist (and an empty database), whole or not at all."""
    if keys is not None and new_identity:
        raise click.UsageError("--keys and --new-identity contradict each other.")
    where = workspace or _root_folder()
    valued = {"--workspace": where, "--blobs": blobs, "--blobs-endpoint": blobs_endpoint, "--keys": keys}
    flags = {"--new-identity": new_identity, "--revoke-tokens": revoke_tokens, "--accept-lost": accept_lost, "--json": as_json}
    options = [f"{name}={value}" for name, value in valued.items() if value is not None]
    options += [name for name, chosen in flags.items() if chosen]
    if database is not None:
        os.environ[_DATABASE] = database
    become("registry.backup", [*options, "--", str(file)], needs="sqlalchemy", extra="server", what="hedgerow restore")


def _root_folder() -> str | None:
    """``hedgerow -w FOLDER restore …`` means the same."""
    chosen: str | None = click.get_current_context().find_root().obj
    if chosen is not None and chosen.startswith(("http://", "https://")):
        raise click.UsageError("A backup is restored into a folder of this machine, not into a running workspace.")
    return chosen
