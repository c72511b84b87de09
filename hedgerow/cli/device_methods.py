"""``hedgerow device invoke | logs | restart | support-bundle``: what a device is asked directly, while it is connected."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.input import parse_json, read_text
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import plain, print_json
from hedgerow.cli.times import since_option, until_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hedgerow.sdk.client import Client
    from hedgerow.sdk.device_methods import LogLine

_LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
_device = click.argument("device", shell_complete=complete.devices)
_timeout = click.option(
    "--timeout-s",
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0, 300, min_open=True),
    help="How long the method may take.",
)


@click.command()
@_device
@click.argument("method")
@click.argument("payload", required=False, metavar="[JSON|@FILE]")
@click.option("--module", metavar="NAME", help="A method of this module instead of the agent's own.")
@_timeout
@click.option(
    "--connect-timeout-s",
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0, 300),
    help="How long to wait for a device that is offline.",
)
@json_option
def invoke(
    device: str, method: str, payload: str | None, module: str | None, timeout_s: float, connect_timeout_s: float, as_json: bool
) -> None:
    """Call METHOD of a device: ping, RestartModule, GetModuleLogs, UploadModuleLogs, UploadSupportBundle, GetTaskStatus.

    Prints the answer; exit code 1 when its status is not 2xx.
    """
    asked = None if payload is None else _payload(payload)
    with workspace() as client:
        called = client.devices.invoke(
            device, method, asked, module=module, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s
        )
    good = called.status is not None and 200 <= called.status < 300
    if as_json:
        print_json(called)
    else:
        click.echo(f"{called.status}{'' if good else ' failed'}", err=True)
        _print_payload(called.payload)
    if not good:
        raise SystemExit(1)


def _payload(text: str) -> object:
    if text.startswith("@"):
        path = Path(text[1:])
        return parse_json(read_text(path), path)
    return parse_json(text, "The payload")


def _print_payload(payload: object) -> None:
    import json

    if isinstance(payload, str):
        click.echo(plain(payload))
    elif payload is not None:
        click.echo(json.dumps(payload, indent=2, ensure_ascii=True))


@click.command()
@_device
@click.argument("module")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Look at the last N lines only.")
@since_option
@until_option
@click.option("--grep", metavar="REGEX", help="Lines in which this is found (Python's syntax).")
@click.option(
    "--level", type=click.Choice(_LEVELS), help="Lines of this level and graver ones (<4> in front of a line; else info)."
)
@click.option("--follow", "-f", is_flag=True, help="Go on as new lines come (asks again every 2 s); Ctrl-C ends it.")
@json_option
def logs(
    device: str,
    module: str,
    tail: int | None,
    since: datetime | None,
    until: datetime | None,
    grep: str | None,
    level: str | None,
    follow: bool,
    as_json: bool,
) -> None:
    """The output of a module, read and filtered on the device. Any length."""
    if follow and until:
        raise click.UsageError("--follow has no end: leave --until away.")
    with workspace() as client:
        levels = None if level is None else list(range(_LEVELS.index(level) + 1))
        begins, ends = (moment.isoformat() if moment else None for moment in (since, until))
        lines: Iterator[LogLine]
        if follow:
            lines = client.devices.follow_logs(device, module, tail=tail, since=begins, regex=grep, levels=levels)
        else:
            lines = client.devices.logs(device, module, tail=tail, since=begins, until=ends, regex=grep, levels=levels)
        seen = False
        with contextlib.suppress(KeyboardInterrupt):
            for line in lines:
                seen = True
                if as_json:
                    print_json(line)
                else:
                    click.echo(plain(line.text))
        if not seen:
            _explain_silence(client, device, module)


def _explain_silence(client: Client, device: str, module: str) -> None:
    """Nothing was printed: because there is no such module, or because no line fits."""
    desired = client.devices.twin(device).desired
    if desired is None or module not in desired.modules:
        names = ", ".join(sorted(desired.modules)) if desired else ""
        raise click.ClickException(f"{device} has no module {module}. It has: {names or 'none'}.")
    click.echo("No line fits.", err=True)


@click.command()
@_device
@click.argument("module")
@_timeout
@json_option
def restart(device: str, module: str, timeout_s: float, as_json: bool) -> None:
    """Stop and start a module now."""
    with workspace() as client:
        called = client.devices.restart_module(device, module, timeout_s=timeout_s)
    if as_json:
        print_json(called)
    else:
        click.echo(f"{device} restarts {module}.")


@click.command("support-bundle")
@_device
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="DEVICE-support.tar.gz",
    help="Where to write it.",
)
@click.option("--without-logs", is_flag=True, help="Leave the modules' logs out.")
@json_option
def support_bundle(device: str, output: Path | None, without_logs: bool, as_json: bool) -> None:
    """Fetch state, decisions, checks, versions and logs of a device as tar.gz; without keys, tokens and passwords."""
    path = output or Path(f"{device}-support.tar.gz")
    try:
        with workspace() as client:
            size = client.devices.support_bundle(device, path, with_logs=not without_logs)
    except FileExistsError:
        raise click.ClickException(f"{path} exists already. Choose another with -o, or remove it.") from None
    if as_json:
        print_json({"device": device, "path": str(path), "size_bytes": size})
    else:
        click.echo(f"Wrote {path} ({size} bytes)")
