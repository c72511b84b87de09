"""``hedgerow agent events``, ``support-bundle`` and ``check``: what the device says of itself, with or without a running agent.

Arguments in, an exit code and lines for people (or machines) out.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.checks.readiness import run_checks
from edge_agent.decisions import KEPT, read_decisions
from edge_agent.device_config import default_state_dir, known_state_dir, read_device_config
from edge_agent.settings import AgentSettings
from edge_agent.state_store import StateStore
from hedgerow.contracts.document import decode
from hedgerow.contracts.edge import DesiredState
from hedgerow.errors import HedgerowError

OK, FAILED = 0, 1
Said = tuple[int, list[str]]


def add_parsers(commands: Any) -> None:  # noqa: ANN401 - argparse's own class for it is private
    """``events`` and ``support-bundle`` below ``hedgerow agent``."""
    text = "what the agent decided, and why (the newest 200)"
    events = commands.add_parser("events", help=text, description=text)
    events.add_argument("--tail", type=int, default=KEPT, metavar="N", help="the newest N only")
    events.add_argument("--module", metavar="NAME", help="of this module only")
    events.add_argument("--json", action="store_true", help="for machines: one JSON object a line")
    text = "write state, decisions, checks, versions and logs to a tar.gz, without keys, tokens and passwords"
    bundle = commands.add_parser("support-bundle", help=text, description=text)
    bundle.add_argument("-o", "--output", type=Path, default=Path("support-bundle.tar.gz"), help="where to write it")
    bundle.add_argument("--without-logs", action="store_true", help="leave the modules' logs out")
    bundle.add_argument("--json", action="store_true", help="for machines")
    for command in (events, bundle):
        command.add_argument("--config", help="the device.toml of this device")
        command.add_argument("--state-dir", help="folder of everything the agent keeps")


def show_events(settings: AgentSettings, options: argparse.Namespace) -> Said:
    """Decisions, oldest first. Raises ConfigMissing."""
    store = StateStore(known_state_dir(settings))
    found = [one for one in read_decisions(store.decisions) if options.module in (None, one.module)]
    newest = found[max(0, len(found) - max(0, options.tail)) :]
    if options.json:
        return OK, [msgspec.json.encode(decision).decode() for decision in newest]
    lines = [f"{one.at:%Y-%m-%d %H:%M:%S} {one.action:<16} {one.module or 'device':<24} {one.reason}" for one in newest]
    return OK, lines if found else [f"nothing was decided yet ({store.folder})"]


def make_bundle(settings: AgentSettings, options: argparse.Namespace, version: str, now: datetime) -> Said:
    """Raises BundleRefused, and what a bad device.toml raises."""
    # Only this command needs the libraries of the extra `edge`; `events` works without them.
    from edge_agent.methods.assembly import MethodsDevice, bundle_source
    from edge_agent.methods.bundle import write_bundle
    from edge_agent.methods.errors import BundleRefused

    config, folder = read_device_config(settings.config), default_state_dir(settings)
    device = MethodsDevice(
        config=config,
        folder=folder,
        state=lambda: _state(StateStore(folder).desired, settings),
        docker_host=settings.docker_host,
        upload_hosts="",
        version=version,
        checks=lambda: list(run_checks(settings.config, folder, now, settings.docker_host)),
    )
    output: Path = options.output
    try:
        # Never over something that is there, and for nobody else to read.
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise BundleRefused(path=output, problem=problem.strerror) from None
    with os.fdopen(fd, "wb") as file:
        names = write_bundle(file, bundle_source(device), now, since_s=None, until_s=None, with_logs=not options.without_logs)
    size = output.stat().st_size
    if options.json:
        return OK, [msgspec.json.encode({"path": str(output), "size_bytes": size, "files": names}).decode()]
    hint = "keys, tokens, passwords and the values of variables are left out; look through it before you send it"
    return OK, [f"wrote {output} ({size} bytes): {', '.join(names)}", hint]


def show_checks(settings: AgentSettings, now: datetime, *, as_json: bool) -> Said:
    """Exit code 1 when a check failed; warnings fail nothing."""
    checks = list(run_checks(settings.config, default_state_dir(settings), now, settings.docker_host))
    code = OK if all(check.ok for check in checks) else FAILED
    if as_json:
        return code, [msgspec.json.encode([dataclasses.asdict(check) for check in checks]).decode()]
    lines = []
    for check in checks:
        word = "failed" if not check.ok else "warn  " if check.warning else "ok    "
        lines.append(f"{word} {check.name:<22} {check.detail}")
        if check.remedy:
            lines.append(f"       {'':<22} {check.remedy}")
    return code, lines


def _state(path: Path, settings: AgentSettings) -> DesiredState | None:
    """The accepted desired state; None when there is none, or it is not signed as it should (the checks say so)."""
    from edge_agent.link.trusted import trusted_in

    config = read_device_config(settings.config)
    try:
        return decode(trusted_in(config, path.parent).open_stored(path.read_bytes()), DesiredState)
    except (OSError, HedgerowError):
        return None
