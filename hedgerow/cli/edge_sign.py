"""``hedgerow edge sign``: sign what devices should run with a key that the control plane does not have."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.atomic_write import atomic_write
from hedgerow.cli.deletion import make_sure, yes_option
from hedgerow.cli.input import read_text
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import count, plain, print_json
from hedgerow.errors import InvalidDocument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hedgerow.contracts.signing import SignedState
    from hedgerow.sdk.edge_signing import Group

_FILE = click.Path(path_type=Path, dir_okay=False)
_NAMED = 5
# A request with signatures is at most so long; a desired state has 700 kB at most.
_BRING_CHARS = 8_000_000


@click.command("sign")
@click.argument("file", required=False, type=_FILE)
@click.option("--export", "export_to", type=_FILE, help="Write what waits for a signature into this file.")
@click.option("--key", "key_file", type=_FILE, help="Sign FILE with this key; needs no server, no network.")
@click.option("-o", "--output", type=_FILE, show_default="FILE.signed", help="Where the signatures go.")
@click.option("--import", "import_from", type=_FILE, help="Bring the signatures of this file to the control plane.")
@yes_option
@json_option
def command(
    file: Path | None,
    export_to: Path | None,
    key_file: Path | None,
    output: Path | None,
    import_from: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Three steps: --export FILE; then FILE --key KEYFILE, on a machine without a network; then --import FILE.signed.

    \b
    hedgerow edge sign --export waiting.json
    hedgerow edge sign waiting.json --key signing.key      shows what it would do, and asks
    hedgerow edge sign --import waiting.json.signed
    """
    steps = [export_to is not None, file is not None, import_from is not None]
    if sum(steps) != 1 or (file is not None) != (key_file is not None) or (output is not None and file is None):
        raise click.UsageError("Say one of: --export FILE; FILE --key KEYFILE [-o SIGNED]; --import SIGNED.")
    if export_to is not None:
        _export(export_to, as_json=as_json)
    elif import_from is not None:
        _import(import_from, as_json=as_json)
    elif file is not None and key_file is not None:
        _sign(file, key_file, output or file.with_name(f"{file.name}.signed"), yes=yes, as_json=as_json)


def _export(path: Path, *, as_json: bool) -> None:
    from hedgerow.contracts.document import encode
    from hedgerow.contracts.signing import UnsignedStates

    with workspace() as client:
        states = UnsignedStates(workspace_id=client.info().workspace_id, states=list(client.signing_keys.iterate_unsigned()))
    atomic_write(path, encode(states))
    if as_json:
        print_json({"file": str(path), "devices": [state.device for state in states.states]})
    else:
        click.echo(f"Wrote what {count(len(states.states), 'device')} would get into {path}. Sign it: {_next(path)}")


def _next(path: Path) -> str:
    return f"hedgerow edge sign {path} --key KEYFILE"


def _sign(file: Path, key_file: Path, output: Path, *, yes: bool, as_json: bool) -> None:
    from hedgerow.contracts.document import decode, encode
    from hedgerow.contracts.signing import SignedStates, UnsignedStates
    from hedgerow.sdk.edge_signing import private_key, readings, signed

    try:
        waiting = decode(read_text(file), UnsignedStates)
    except InvalidDocument as problem:
        raise click.ClickException(f"{file} is not what `hedgerow edge sign --export` writes: {problem}.") from None
    private = private_key(read_text(key_file), key_file)
    if key_file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        click.echo(f"Others can read {key_file}: chmod 600 it.", err=True)
    groups = readings(waiting.states, private)
    for group in groups:
        _show(group)
    if not waiting.states:
        raise click.ClickException(f"Nothing waits for a signature in {file}.")
    make_sure(f"sign this for {count(len(waiting.states), 'device')}", yes=yes)
    made = SignedStates(workspace_id=waiting.workspace_id, states=[signed(state, private) for state in waiting.states])
    atomic_write(output, encode(made))
    if as_json:
        print_json({"file": str(output), "devices": [state.device for state in made.states]})
    else:
        click.echo(f"Signed for {count(len(made.states), 'device')}. Bring it back: hedgerow edge sign --import {output}")


def _show(group: Group) -> None:
    """On standard error, where the question stands."""
    more = len(group.devices) - _NAMED
    names = " ".join(group.devices[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    click.echo(f"{count(len(group.devices), 'device')} ({plain(names)}): {plain(group.reading.deployment)}", err=True)
    for line in group.reading.lines:
        click.echo(f"  {plain(line)}", err=True)


def _import(path: Path, *, as_json: bool) -> None:
    from hedgerow.contracts.document import decode
    from hedgerow.contracts.signing import RefusedSignature, SignedStates

    try:
        brought = decode(read_text(path), SignedStates)
    except InvalidDocument as problem:
        advice = (
            f"Sign it first, and bring {path.name}.signed: {_next(path)}" if _is_unsigned(path) else "Bring the file FILE.signed."
        )
        raise click.ClickException(f"{path} holds no signatures: {problem}. {advice}") from None
    taken: list[str] = []
    refused: list[RefusedSignature] = []
    with workspace() as client:
        for part in _parts(brought.states):
            answer = client.signing_keys.bring(SignedStates(workspace_id=brought.workspace_id, states=part))
            taken += answer.taken
            refused += answer.refused
    if as_json:
        print_json({"taken": taken, "refused": refused})
    else:
        click.echo(f"{count(len(taken), 'device')} will get what was signed.")
        for one in refused:
            click.echo(f"{plain(one.device)}: {plain(one.problem)}", err=True)
    if refused:
        advice = "export what waits now and sign that, with a key that the devices believe"
        raise click.ClickException(f"{count(len(refused), 'signature')} came to nothing; {advice}.")


def _is_unsigned(path: Path) -> bool:
    from hedgerow.contracts.document import decode
    from hedgerow.contracts.signing import UnsignedStates

    try:
        decode(read_text(path), UnsignedStates)
    except InvalidDocument:
        return False
    return True


def _parts(states: Sequence[SignedState]) -> Iterator[list[SignedState]]:
    part: list[SignedState] = []
    chars = 0
    for state in states:
        if part and chars + len(state.envelope) > _BRING_CHARS:
            yield part
            part, chars = [], 0
        part.append(state)
        chars += len(state.envelope)
    if part:
        yield part
