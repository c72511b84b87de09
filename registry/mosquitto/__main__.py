"""Composition root of the broker for devices (``python -P -m registry.mosquitto``): settings in, parts together, then keep."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

from hedgerow.atomic_write import atomic_write
from hedgerow.clock import SystemClock
from hedgerow.errors import HedgerowError, InvalidSetting
from hedgerow.logs import set_up_logs
from hedgerow.process.errors import LockHeld
from hedgerow.process.lock import hold_lock
from registry.errors import RoleTaken
from registry.identity.authority import issue_server
from registry.identity.revocations import Revocations
from registry.mosquitto.admission import Admission
from registry.mosquitto.certificates import Certificates
from registry.mosquitto.configuration import Listening
from registry.mosquitto.files import Files, owner_for
from registry.mosquitto.keeper import Keeper
from registry.mosquitto.listening import parse_listen, server_names
from registry.mosquitto.settings import MosquittoSettings
from registry.settings import read_settings
from registry.stop_signals import StopSignals
from registry.store import schema
from registry.store.database import open_database
from registry.wakeups_socket import SocketReceiver
from registry.workspace import Workspace, open_workspace


def main(arguments: list[str]) -> int:
    """Exit codes: 0 stopped as asked, 1 could not start or ended by itself, 2 wrong options."""
    try:
        settings = read_settings(MosquittoSettings, "python -P -m registry.mosquitto", arguments, os.environ)
        set_up_logs(settings.log_level, settings.log_format)
        stop = StopSignals(watch_parent=settings.watch_parent)
        workspace = open_workspace(settings.workspace)
        try:
            lock = hold_lock(workspace.role_lock("broker"), "The broker")
        except LockHeld as held:
            raise RoleTaken(role="broker", folder=workspace.folder, pid=held.fields["pid"]) from None
        with lock:
            _serve(settings, workspace, stop)
    except HedgerowError as problem:
        print(f"hedgerow broker: {problem.sentence()}", file=sys.stderr, flush=True)
        return 2 if isinstance(problem, InvalidSetting) else 1
    return 0


def _serve(settings: MosquittoSettings, workspace: Workspace, stop: StopSignals) -> None:
    listening = _listening(settings)
    host = (listening.passwords or listening.certificates or ("", 0))[0]
    names, clock = server_names(settings.names, host), SystemClock()
    certificates = Certificates(_files_given(settings), lambda now: issue_server(workspace, names, now), clock.now)
    with ExitStack() as parts:
        database = parts.enter_context(closing(open_database(settings.database, workspace.folder)))
        schema.upgrade(database, workspace)
        wakeups = parts.enter_context(closing(SocketReceiver(workspace.run, "broker")))
        owner = owner_for()
        files = parts.enter_context(closing(Files(workspace.run / "mosquitto.folder", owner)))
        revocations = Revocations(workspace, timedelta(seconds=settings.revocations_s)) if listening.certificates else None
        admission = Admission(workspace, files, revocations, clock.now)
        keeper = Keeper(workspace, database, files, owner, listening, settings.program, certificates, admission, clock)
        parts.enter_context(closing(keeper))
        keeper.start()
        if not keeper.wait_until_it_listens(stop):
            return
        facts = json.dumps({"url": f"mqtt://127.0.0.1:{settings.port}", "pid": os.getpid()}).encode()
        for path in (workspace.run / "broker.json", settings.ready_file):
            if path is not None:
                atomic_write(path, facts)
                parts.callback(path.unlink, missing_ok=True)
        logging.getLogger("registry.mosquitto").info(
            "Mosquitto listens for devices on %s", " and ".join(filter(None, (settings.listen, settings.mtls)))
        )
        keeper.keep(stop, wakeups)


def _listening(settings: MosquittoSettings) -> Listening:
    passwords = parse_listen(settings.listen) if settings.listen else None
    certificates = parse_listen(settings.mtls, "mtls") if settings.mtls else None
    if passwords is None and certificates is None:
        raise InvalidSetting(name="listen", value="", problem="there is no --mtls either", source="--listen")
    return Listening(settings.port, passwords, certificates)


def _files_given(settings: MosquittoSettings) -> tuple[Path, Path] | None:
    if settings.cert is None and settings.key is None:
        return None
    if settings.cert is None or settings.key is None:
        problem = "--cert and --key go together"
        raise InvalidSetting(name="cert", value=str(settings.cert or settings.key), problem=problem, source="--cert")
    return settings.cert, settings.key


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
