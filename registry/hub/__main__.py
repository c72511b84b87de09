"""Composition root of the hub (``python -P -m registry.hub``): reads settings, builds the parts, runs the loop."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from hedgerow.atomic_write import atomic_write
from hedgerow.clock import SystemClock
from hedgerow.contracts.broker_login import hub_login
from hedgerow.errors import HedgerowError, InvalidSetting
from hedgerow.logs import set_up_logs
from hedgerow.process.errors import LockHeld
from hedgerow.process.lock import HeldLock, hold_lock
from registry.errors import RoleTaken
from registry.hub.desired import DesiredStates
from registry.hub.errors import SharingNeedsPostgres
from registry.hub.holes import Holes
from registry.hub.hub import Hub
from registry.hub.inbox import Inbox
from registry.hub.intake import Intake
from registry.hub.link_mqtt import BrokerAddress, MqttLink, parse_broker_url
from registry.hub.link_shared import LEASE, LEASE_TTL_S, SharedLink
from registry.hub.methods import Methods
from registry.hub.notes import Notes
from registry.hub.rollouts.rollouts import Rollouts
from registry.hub.settings import HubSettings
from registry.hub.signing import signing_of
from registry.settings import read_settings
from registry.stop_signals import StopSignals
from registry.store import leases, schema
from registry.store.database import Database, open_database
from registry.wakeups import METHODS
from registry.wakeups_socket import MOST_SHARING, SocketReceiver, SocketWakeups, numbered
from registry.workspace import Workspace, open_workspace

log = logging.getLogger("registry.hub")


def main(arguments: list[str]) -> int:
    """Exit codes: 0 stopped as asked, 1 could not start, 2 wrong options."""
    try:
        settings = read_settings(HubSettings, "python -P -m registry.hub", arguments, os.environ)
        set_up_logs(settings.log_level, settings.log_format)
        stop = StopSignals(watch_parent=settings.watch_parent)
        workspace = open_workspace(settings.workspace)
        if settings.share and settings.database is None:
            raise SharingNeedsPostgres(folder=workspace.folder)
        lock, number = _role(workspace, MOST_SHARING if settings.share else 1)
        with lock:
            _serve(settings, workspace, stop, number)
    except HedgerowError as problem:
        print(f"hedgerow hub: {problem.sentence()}", file=sys.stderr, flush=True)
        return 2 if isinstance(problem, InvalidSetting) else 1
    return 0


def _role(workspace: Workspace, most: int) -> tuple[HeldLock, int]:
    """The first free place of ``most``, numbered from 1."""
    for number in range(1, most + 1):
        try:
            return hold_lock(workspace.role_lock(numbered("hub", number)), "The hub"), number
        except LockHeld as held:
            pid = held.fields["pid"]
    raise RoleTaken(role="hub", folder=workspace.folder, pid=pid)


def _address(settings: HubSettings, workspace: Workspace) -> BrokerAddress:
    address = parse_broker_url(settings.broker_url)
    if settings.broker_login == "url":
        return address
    login = hub_login(workspace.device_master)
    return replace(address, username=login.user, password=login.password)


def _link(
    settings: HubSettings, workspace: Workspace, client_id: str, inbox: Inbox, database: Database, holder: str
) -> MqttLink | SharedLink:
    address, clock = _address(settings, workspace), SystemClock()
    if not settings.share:
        return MqttLink(address, client_id, workspace.topic_prefix, inbox)

    def my_turn() -> bool:
        with database.write() as connection:
            return leases.acquire(connection, LEASE, holder, LEASE_TTL_S, clock.now()) is not None

    return SharedLink(address, client_id, workspace.topic_prefix, inbox, my_turn)


def _serve(settings: HubSettings, workspace: Workspace, stop: StopSignals, number: int) -> None:
    address = _address(settings, workspace)
    clock = SystemClock()
    with ExitStack() as parts:
        database = parts.enter_context(closing(open_database(settings.database, workspace.folder)))
        schema.upgrade(database, workspace)
        inbox = parts.enter_context(closing(Inbox()))
        wakeups = parts.enter_context(closing(SocketReceiver(workspace.run, numbered("hub", number))))
        method_wakeups = parts.enter_context(closing(SocketReceiver(workspace.run, numbered(METHODS, number))))
        notes = Notes()
        # The lock makes sure that there is one such hub per folder: one that was killed and started again keeps its leases.
        holder = numbered(f"{socket.gethostname()}:{workspace.folder}", number)
        signing = signing_of(workspace.keys)
        others = parts.enter_context(closing(SocketWakeups(workspace.run)))
        methods = Methods(database, signing, others)
        # With a random end: brokers end the connection of whoever had the same name, and every device could say ours.
        client_id = f"{numbered(f'hedgerow-hub-{workspace.id}', number)}-{secrets.token_hex(8)}"
        link = parts.enter_context(closing(_link(settings, workspace, client_id, inbox, database, holder)))
        hub = Hub(
            inbox=inbox,
            link=link,
            wakeups=wakeups,
            intake=Intake(
                database,
                workspace.device_master,
                notes,
                methods,
                holes=Holes() if settings.share else None,
                on_new_key=lambda: others.wake("broker"),
            ),
            desired=DesiredStates(database, signing, holder, notes),
            notes=notes,
            clock=clock,
            methods=methods,
            method_wakeups=method_wakeups,
            rollouts=Rollouts(database, holder),
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
