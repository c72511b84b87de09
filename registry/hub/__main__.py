"""Composition root of the hub (``python -P -m registry.hub``): reads settings, builds the parts, runs the loop."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from hedgerow.atomic_write import atomic_write
from hedgerow.clock import SystemClock
from hedgerow.errors import HedgerowError, InvalidSetting
from hedgerow.logs import set_up_logs
from hedgerow.process.errors import LockHeld
from hedgerow.process.lock import HeldLock, hold_lock
from registry.errors import RoleTaken
from registry.hub.desired import DesiredStates
from registry.hub.hub import Hub
from registry.hub.inbox import Inbox
from registry.hub.intake import Intake
from registry.hub.link_mqtt import MqttLink, parse_broker_url
from registry.hub.notes import Notes
from registry.hub.settings import HubSettings
from registry.settings import read_settings
from registry.stop_signals import StopSignals
from registry.store import schema
from registry.store.database import open_database
from registry.wakeups_socket import SocketReceiver
from registry.workspace import Workspace, open_workspace

log = logging.getLogger("registry.hub")


def main(arguments: list[str]) -> int:
    """Exit codes: 0 stopped as asked, 1 could not start, 2 wrong options."""
    try:
        settings = read_settings(HubSettings, "python -P -m registry.hub", arguments, os.environ)
        set_up_logs(settings.log_level, settings.log_format)
        stop = StopSignals(watch_parent=settings.watch_parent)
        workspace = open_workspace(settings.workspace)
        with _role(workspace):
            _serve(settings, workspace, stop)
    except HedgerowError as problem:
        print(f"hedgerow hub: {problem.sentence()}", file=sys.stderr, flush=True)
        return 2 if isinstance(problem, InvalidSetting) else 1
    return 0


def _role(workspace: Workspace) -> HeldLock:
    try:
        return hold_lock(workspace.role_lock("hub"), "The hub")
    except LockHeld as held:
        raise RoleTaken(role="hub", folder=workspace.folder, pid=held.fields["pid"]) from None


def _serve(settings: HubSettings, workspace: Workspace, stop: StopSignals) -> None:
    address = parse_broker_url(settings.broker_url)
    clock = SystemClock()
    with ExitStack() as parts:
        database = parts.enter_context(closing(open_database(settings.database, workspace.folder)))
        schema.upgrade(database, workspace)
        inbox = parts.enter_context(closing(Inbox()))
        wakeups = parts.enter_context(closing(SocketReceiver(workspace.run, "hub")))
        notes = Notes()
        # The lock makes sure that there is one hub per folder, so a hub that was killed and started again keeps its lease.
        holder = f"{socket.gethostname()}:{workspace.folder}"
        signers = {workspace.trusted_key.keyid: workspace.signing_key.sign}
        link = parts.enter_context(closing(MqttLink(address, f"hedgerow-hub-{workspace.id}", workspace.topic_prefix, inbox)))
        hub = Hub(
            inbox=inbox,
            link=link,
            wakeups=wakeups,
            intake=Intake(database, workspace.device_master, notes),
            desired=DesiredStates(database, signers, holder, notes),
            notes=notes,
            clock=clock,
        )
        if settings.ready_file is not None:
            _announce(settings.ready_file, address.shown)
            parts.callback(settings.ready_file.unlink, missing_ok=True)
        log.info("The hub of workspace %s is ready", workspace.folder)
        hub.run(stop)
        log.info("The hub stops%s", f"; seen since its start: {dict(notes.counts)}" if notes.counts else "")


def _announce(path: Path, broker: str) -> None:
    atomic_write(path, json.dumps({"broker": broker, "pid": os.getpid()}).encode())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
