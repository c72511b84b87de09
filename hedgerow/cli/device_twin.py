"""``hedgerow device twin``: what a device and its modules are told, beside what they say of themselves; changes of the former."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hedgerow.cli import complete
from hedgerow.cli.input import parse_json, read_text
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import ago, print_json, print_record, print_table, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hedgerow.contracts.api_fleet import DeviceTwin
    from hedgerow.contracts.edge import DesiredState
    from hedgerow.contracts.status import StatusReport
    from hedgerow.contracts.twins import ModuleTwin

_ABSENT = object()
_COMMAND_CHARS = 60


@click.command()
@click.argument("name", shell_complete=complete.devices)
@click.argument("module", required=False)
@click.option("--set", "sets", metavar="KEY.PATH=VALUE", multiple=True, help="Tell MODULE this on this device; JSON or text.")
@click.option("--unset", "unsets", metavar="KEY.PATH", multiple=True, help="Take such a change away again.")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A JSON object with changes; null takes one away.",
)
@click.option("--reset", is_flag=True, help="Take all such changes away: MODULE is told what its deployments say.")
@json_option
def twin(
    name: str, module: str | None, sets: tuple[str, ...], unsets: tuple[str, ...], file: Path | None, reset: bool, as_json: bool
) -> None:
    """What a device should run beside what it says of itself; with MODULE its properties, desired and reported.

    Changes lie on top of what deployments say, on this device alone.
    """
    changes = bool(sets or unsets or file)
    if module is None:
        if changes or reset:
            raise click.UsageError("Name the MODULE to change.")
        with workspace() as client:
            _show_device(client.devices.twin(name), as_json=as_json)
        return
    if changes and reset:
        raise click.UsageError("Give --reset, or changes, not both.")
    patch = _patch(sets, unsets, file)
    with workspace() as client:
        if reset:
            found = client.devices.reset_module_twin(name, module)
        elif changes:
            found = client.devices.patch_module_twin(name, module, patch)
        else:
            found = client.devices.module_twin(name, module)
    if as_json:
        print_json(found)
    elif changes or reset:
        click.echo(f"{name}/{module}: {_patched_words(found)}. See what it is told with: hedgerow device twin {name} {module}")
    else:
        _show_module(found)


def _patch(sets: Iterable[str], unsets: Iterable[str], file: Path | None) -> dict[str, Any]:
    """The merge patch of all options."""
    patch: dict[str, Any] = {}
    if file is not None:
        read = parse_json(read_text(file), file)
        if not isinstance(read, dict):
            raise click.UsageError(f"{file} holds no JSON object.")
        patch = read
    for text in sets:
        path, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"Write --set KEY.PATH=VALUE, not {text!r}.")
        _put(patch, path, _value(value, text))
    for path in unsets:
        _put(patch, path, None)
    return patch


def _put(patch: dict[str, Any], path: str, value: object) -> None:
    *above, last = path.split(".")
    if not all([*above, last]):
        raise click.UsageError(f"{path!r} is no path of keys with dots between them.")
    for key in above:
        below = patch.get(key)
        patch[key] = patch = below if isinstance(below, dict) else {}
    patch[last] = value


def _value(text: str, option: str) -> object:
    """JSON where it is some, else the text itself; but what begins like an object, a list or a quoted text has to be one."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
        if text.startswith(("{", "[", '"')):
            raise click.UsageError(f"The value in --set {option} is not JSON: {problem}") from None
        return text


def _patched_words(found: ModuleTwin) -> str:
    if not found.patch:
        return "nothing is changed on this device any more"
    return f"{', '.join(path for path, _ in _leaves('', found.patch))} changed on this device (revision {found.revision})"


def _show_device(found: DeviceTwin, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_table(("module", "should run", "runs", "state", "reason"), _beside(found.desired, found.reported), "No modules.")
    rows = [
        (name, one.desired_version, one.reported_version, " ".join(path for path, *_, note in _properties(one) if note))
        for name, one in found.modules.items()
        if one.desired or one.reported or one.patch
    ]
    if rows:
        click.echo()
        print_table(("twin of", "desired", "reported", "not reported as desired"), rows, "")


def _show_module(found: ModuleTwin) -> None:
    patched = ", ".join(path for path, _ in _leaves("", found.patch))
    print_record(
        {
            "device": found.device,
            "module": found.module,
            "desired version": found.desired_version,
            "reported version": found.reported_version,
            "reported": ago(found.reported_at),
            "changed here": f"{patched} (revision {found.revision})" if patched else "nothing",
        }
    )
    print_table(("property", "desired", "reported", ""), _properties(found), "No properties.")


def _properties(found: ModuleTwin) -> Iterator[tuple[str, str, str, str]]:
    """Path, desired, reported, and what is not reported as it is desired."""
    from hedgerow.contracts.merge_patch import json_text

    desired, reported = dict(_leaves("", found.desired)), dict(_leaves("", found.reported))
    for path in sorted(desired.keys() | reported.keys()):
        wanted, said = desired.get(path, _ABSENT), reported.get(path, _ABSENT)
        if wanted is _ABSENT or said is _ABSENT:
            note = "" if wanted is _ABSENT else "not reported"
        else:
            note = "" if json_text(wanted) == json_text(said) else "differs"
        yield path, _text(wanted), _text(said), note


def _leaves(path: str, value: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Values that are no objects, or empty ones, by path."""
    for key, inner in value.items():
        below = f"{path}.{key}" if path else key
        if isinstance(inner, dict) and inner:
            yield from _leaves(below, inner)
        else:
            yield below, inner


def _text(value: object) -> str:
    import msgspec

    return "" if value is _ABSENT else value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _cut(command: str) -> str:
    """What fits into a table; --json has all of it."""
    return command if len(command) <= _COMMAND_CHARS else f"{command[: _COMMAND_CHARS - 1]}…"


def _beside(desired: DesiredState | None, reported: StatusReport | None) -> Iterator[tuple[object, ...]]:
    wanted = desired.modules if desired else {}
    seen = reported.modules if reported else {}
    for name in sorted(wanted.keys() | seen.keys()):
        module, status = wanted.get(name), seen.get(name)
        should = (
            "nothing" if module is None else short(module.image.digest) if module.image else _cut(" ".join(module.spec.command))
        )
        does = (short(status.image_digest), status.state, status.reason) if status else ("", "not reported", "")
        yield name, should, *does
