"""``hedgerow gc``."""

from __future__ import annotations

import click

from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import count, follow, print_json, short, size


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@json_option
def command(dry_run: bool, as_json: bool) -> None:
    """Free contents that nothing refers to any more; everything else goes on meanwhile."""
    from hedgerow.sdk.blobs import freed_by

    with workspace() as client:
        activity = client.blobs.collect_garbage(dry_run=dry_run)
        freed = freed_by(follow(client, activity.id, "gc", quiet=as_json))
    if as_json:
        print_json(freed)
        return
    for blob in freed.first:
        click.echo(f"{short(blob.digest)}  {size(blob.size_bytes)}")
    if freed.blobs > len(freed.first):
        click.echo(f"and {freed.blobs - len(freed.first)} more")
    verb = "Would free" if freed.dry_run else "Freed"
    click.echo(f"{verb} {count(freed.blobs, 'blob')} ({size(freed.size_bytes)})", nl=False)
    click.echo(f" and {count(freed.leftovers, 'unfinished upload')} ({size(freed.leftover_bytes)})" if freed.leftovers else "")
    if not freed.blobs:
        click.echo("Content stays for a day after it was uploaded (HEDGEROW_BLOB_LEASE_S), needed or not.", err=True)
