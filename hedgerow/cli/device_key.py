"""``hedgerow device key``: keys with which devices enrol by themselves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.atomic_write import atomic_write
from hedgerow.cli import complete
from hedgerow.cli.deletion import take_away, yes_option
from hedgerow.cli.options import json_option, limit_option, tag_option, workspace
from hedgerow.cli.output import ago, pairs, print_json, print_page
from hedgerow.cli.times import duration_s
from hedgerow.cli.whole_help import WholeHelp

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.enrollment import EnrollmentKey


@click.group("key", cls=WholeHelp)
def key() -> None:
    """Keys with which devices enrol themselves."""


@key.command()
@click.argument("name")
@click.option("--device", help="The one name that the device may have.")
@click.option("--names", metavar="PREFIX", help="What the devices' names must begin with: press-")
@tag_option
@click.option("--uses", type=click.IntRange(1, 10_000_000), help="For so many devices; 1 when left out.")
@click.option("--group", is_flag=True, help="For any number of devices.")
@click.option(
    "--expires",
    "seconds",
    callback=duration_s,
    default="7d",
    show_default=True,
    metavar="DURATION",
    help="After 30d, 12h, 45min, …",
)
@click.option("--no-expiry", is_flag=True, help="Good until it is revoked.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file instead.")
@json_option
def create(
    name: str,
    device: str | None,
    names: str | None,
    tags: dict[str, str],
    uses: int | None,
    group: bool,
    seconds: int | None,
    no_expiry: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Make a key and print its secret, this once."""
    if group and uses is not None:
        raise click.UsageError("A key is for a group without a limit, or for so many uses: give --group or --uses.")
    make = partial(
        _create,
        name,
        device=device,
        names=names,
        tags=tags,
        uses_max=None if group else uses or 1,
        expires_in_s=None if no_expiry else seconds,
    )
    made = make() if output is None else _written(make, output)
    if as_json:
        print_json(made)
    elif output is None:
        click.echo(made.secret)
    else:
        click.echo(f"Wrote key {made.id} to {output}. On the device: hedgerow agent enroll --url URL --key-file {output}")


def _create(
    name: str,
    *,
    device: str | None,
    names: str | None,
    tags: dict[str, str],
    uses_max: int | None,
    expires_in_s: int | None,
) -> EnrollmentKey:
    with workspace() as client:
        return client.enrollment_keys.create(
            name, device=device, names=names, tags=tags, uses_max=uses_max, expires_in_s=expires_in_s
        )


def _written(make: Callable[[], EnrollmentKey], path: Path) -> EnrollmentKey:
    """The key without its secret, which is in the file."""
    import msgspec

    try:
        # Before the key is made: it is told this once, and must have a place to go.
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise click.ClickException(f"{path} exists already. Choose another with -o, or remove it.") from None
    try:
        made = make()
    except BaseException:
        path.unlink()
        raise
    atomic_write(path, f"{made.secret}\n".encode(), mode=0o600)
    return msgspec.structs.replace(made, secret=None)


@key.command("list")
@limit_option
@json_option
def list_keys(limit: int, as_json: bool) -> None:
    """Keys, newest first, without their secrets."""
    with workspace() as client:
        page = client.enrollment_keys.list(limit)
    columns: dict[str, Callable[[EnrollmentKey], object]] = {
        "key": lambda k: k.id,
        "name": lambda k: k.name,
        "for": lambda k: k.device or f"{k.names or ''}*",
        "tags": lambda k: pairs(k.tags),
        "used": lambda k: f"{k.uses} of {'any' if k.uses_max is None else k.uses_max}",
        "state": _state,
        "expires": lambda k: k.expires_at.date() if k.expires_at else "never",
        "last used": lambda k: ago(k.last_used_at),
    }
    print_page(page, limit, columns, empty="No enrolment keys yet: hedgerow device key create NAME", as_json=as_json)


def _state(found: EnrollmentKey) -> str:
    from hedgerow.clock import SystemClock

    if found.revoked_at is not None:
        return "revoked"
    if found.expires_at is not None and found.expires_at <= SystemClock().now():
        return "expired"
    return "used up" if found.uses_max is not None and found.uses >= found.uses_max else "good"


@key.command()
@click.argument("key_id", shell_complete=complete.enrollment_keys)
@yes_option
@json_option
def revoke(key_id: str, yes: bool, as_json: bool) -> None:
    """Let nothing enrol with it any more; devices that did stay."""
    with workspace() as client:
        meaning, do = ", with which nothing enrols any more", partial(client.enrollment_keys.revoke, key_id)
        take_away(key_id, do, meaning=meaning, yes=yes, as_json=as_json, verb="revoke", done="revoked")
