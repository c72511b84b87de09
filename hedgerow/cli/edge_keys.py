"""``hedgerow edge keys``: the keys that sign what devices are told."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.atomic_write import atomic_write
from hedgerow.cli.deletion import make_sure, yes_option
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import count, print_items, print_json, short
from hedgerow.cli.whole_help import WholeHelp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hedgerow.contracts.signing import SigningKey

_KEEP = "Keep this file where no network reaches; without it nobody can tell these devices anything."


@click.group("keys", cls=WholeHelp)
def command() -> None:
    """The keys that sign what devices are told: list them, add one, retire one, keep one elsewhere."""


@command.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """Which keys there are, and which devices do not believe them yet."""
    with workspace() as client:
        found = client.signing_keys.list()
    _show(found, as_json=as_json)


def _show(found: Sequence[SigningKey], *, as_json: bool) -> None:
    columns: dict[str, Callable[[SigningKey], object]] = {
        "key": lambda k: short(k.keyid),
        "signs": lambda k: " ".join(k.uses) or "everything",
        "private half": lambda k: "here" if k.here else "kept elsewhere",
        "not believed yet by": _unconfirmed,
    }
    print_items(found, columns, empty="No keys.", as_json=as_json)


def _unconfirmed(key: SigningKey) -> str:
    if not key.unconfirmed_count:
        return ""
    more = key.unconfirmed_count - len(key.unconfirmed)
    return f"{count(key.unconfirmed_count, 'device')}: {' '.join(key.unconfirmed)}{f' and {more} more' if more else ''}"


@command.command()
@json_option
def rotate(as_json: bool) -> None:
    """Add a key; both sign, and devices learn to believe the new one. Then retire the old one."""
    with workspace() as client:
        made = client.signing_keys.add()
    if as_json:
        print_json(made)
        return
    click.echo(f"Made key {short(made.keyid)}. It signs beside the others from now on.")
    click.echo("When `hedgerow edge keys list` names no device any more: hedgerow edge keys retire OLD-KEY")


@command.command()
@click.argument("key")
@click.option("--force", is_flag=True, help="Also while devices believe no other; those need a new device.toml.")
@yes_option
@json_option
def retire(key: str, force: bool, yes: bool, as_json: bool) -> None:
    """Forget KEY (its id, or how that begins) for good: devices stop to believe it."""
    make_sure(f"retire signing key {key}", yes=yes)
    with workspace() as client:
        left = client.signing_keys.retire(key, force=force)
    _show(left, as_json=as_json)


@command.command("take-offline")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--key", "keyid", help="Which one, if there are several (its id, or how that begins).")
@yes_option
@json_option
def take_offline(file: Path, keyid: str | None, yes: bool, as_json: bool) -> None:
    """Move the private half of the signing key into FILE. What changes for devices then waits: hedgerow edge sign."""
    from hedgerow.contracts.signing import kept_words
    from hedgerow.sdk.edge_signing import private_key

    if not file.absolute().parent.is_dir():
        raise click.ClickException(
            f"{file} cannot be written: there is no folder {file.parent}. Make it, or choose another place."
        )
    make_sure("take the signing key away from the control plane", yes=yes)
    with workspace() as client:
        chosen = _chosen(client.signing_keys.list(), keyid)
        text = client.signing_keys.private(chosen.keyid).private
        private = private_key(text, file)
        try:
            # On the disk before anything forgets it.
            atomic_write(file, text.encode() + b"\n", mode=0o600, replace=False)
        except FileExistsError:
            raise click.ClickException(f"{file} exists already. Choose another name, or remove it.") from None
        proof = base64.b64encode(private.sign(kept_words(chosen.keyid))).decode()
        left = client.signing_keys.take_offline(chosen.keyid, proof)
    if not as_json:
        click.echo(f"The private half of key {short(chosen.keyid)} is in {file} only. {_KEEP}")
    _show(left, as_json=as_json)


def _chosen(keys: Sequence[SigningKey], keyid: str | None) -> SigningKey:
    wanted = (keyid or "").removeprefix("sha256:")
    able = [key for key in keys if key.here and key.keyid.removeprefix("sha256:").startswith(wanted)]
    able = able if keyid else [key for key in able if not key.uses or "desired" in key.uses]
    if not able:
        named = f" {keyid}" if keyid else ""
        raise click.ClickException(
            f"No key{named} that may sign desired states is on the control plane. See: hedgerow edge keys list"
        )
    if len(able) != 1:
        raise click.UsageError("Which key? Name one with --key (hedgerow edge keys list).")
    return able[0]
