"""What ``hedgerow image build`` says: progress while it waits, and then what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hedgerow.cli.output import follow, print_json, size

if TYPE_CHECKING:
    from hedgerow.contracts.image import ImageRecord, Verification
    from hedgerow.contracts.work import Activity
    from hedgerow.sdk.client import Client


def tell(client: Client, build: Activity, *, as_json: bool) -> None:
    """Wait for the build, and show its image. Raises ActivityFailed."""
    ended = follow(client, build.id, f"building {build.subject}", quiet=as_json)
    record = client.images.get(ended.result["image"])
    if as_json:
        print_json(record)
    else:
        _print(record, "Nothing changed:" if ended.result.get("unchanged") else "Built")


def verdict(verification: Verification | None) -> str:
    """What the test before "built" found, as a sentence."""
    if verification is None or verification.state == "skipped":
        return f"Not verified: {verification.reason if verification else 'no record'}"
    return f"Verified: {verification.reason}"


def _print(record: ImageRecord, did: str) -> None:
    click.echo(f"{did} {record.name}:{record.version} ({record.kind}, {size(record.size_bytes)}, {record.digest})")
    for note in record.notes:
        click.echo(f"Note: {note}")
    click.echo(verdict(record.verification))
