"""``python -P -m registry.server``: the REST API, the pages and the OCI API of one workspace."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hedgerow.atomic_write import atomic_write
from hedgerow.clock import SystemClock
from hedgerow.egress import EgressPolicy
from hedgerow.errors import HedgerowError, InvalidSetting
from hedgerow.logs import set_up_logs
from hedgerow.process.errors import LockHeld
from hedgerow.process.lock import hold_lock
from registry.blobs.choose import open_store
from registry.blobs.errors import StorageUnavailable
from registry.errors import PlaintextRefused, RoleTaken
from registry.identity.device_certificates import life_of
from registry.server import owner_token
from registry.server.app import create_app
from registry.server.context import ServerContext
from registry.server.followers import Followers
from registry.server.guard import is_loopback
from registry.server.gunicorn_process import Serving, serve
from registry.server.listeners import bind_tcp, bind_unix
from registry.settings import ServerSettings, read_settings
from registry.store import schema
from registry.store.database import open_database
from registry.wakeups_socket import SocketReceiver, SocketWakeups
from registry.workspace import Workspace, open_workspace

ROLE = "server"


def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0 stopped as asked, 1 could not start, 2 wrong options."""
    try:
        settings = read_settings(ServerSettings, "python -P -m registry.server", arguments, os.environ)
        set_up_logs(settings.log_level, settings.log_format)
        _run(settings)
    except HedgerowError as problem:
        print(f"hedgerow server: {problem.sentence()}", file=sys.stderr)
        return 2 if isinstance(problem, InvalidSetting) else 1
    return 0


def _run(settings: ServerSettings) -> None:
    if not settings.behind_proxy and not is_loopback(settings.host):
        raise PlaintextRefused(host=settings.host)
    EgressPolicy.parse(settings.egress_allow)  # said now, not to the first who makes a webhook
    life_of(settings.device_certificate_s)
    with _disk_trouble_said():
        workspace = open_workspace(settings.workspace)
    with _role(workspace):
        tcp = bind_tcp(settings.host, settings.port)
        here = _context(workspace, dataclasses.replace(settings, port=tcp.getsockname()[1]))
        with _disk_trouble_said():
            unix = bind_unix(workspace.server_socket)
            schema.upgrade(here.database, workspace)
            with here.database.write() as connection:
                owner_token.ensure(connection, workspace, here.clock.now())
        _serve(here, [tcp, unix])


def _context(workspace: Workspace, settings: ServerSettings) -> ServerContext:
    return ServerContext(
        workspace=workspace,
        database=open_database(settings.database, workspace.folder),
        blobs=open_store(workspace.blobs, settings.blobs, settings.blobs_endpoint),
        wakeups=SocketWakeups(workspace.run),
        clock=SystemClock(),
        settings=settings,
    )


def _serve(here: ServerContext, listeners: list[socket.socket]) -> None:
    news = Followers()
    news.listen(SocketReceiver(here.workspace.run, ROLE))
    signs = [here.workspace.run / "server.json", *([here.settings.ready_file] if here.settings.ready_file else [])]
    facts = json.dumps({"url": here.settings.url, "pid": os.getpid()}).encode()

    def announce() -> None:
        for path in signs:
            atomic_write(path, facts)

    try:
        serve(
            Serving(
                app=create_app(here, news),
                news=news,
                listeners=listeners,
                threads=here.settings.threads,
                watch_parent=here.settings.watch_parent,
                on_ready=announce,
            )
        )
    finally:
        for path in (*signs, here.workspace.server_socket, here.workspace.run / f"{ROLE}.wake"):
            path.unlink(missing_ok=True)
        here.database.close()


@contextmanager
def _role(workspace: Workspace) -> Iterator[None]:
    try:
        lock = hold_lock(workspace.role_lock(ROLE), "The server")
    except LockHeld as held:
        raise RoleTaken(role=ROLE, folder=workspace.folder, pid=held.fields["pid"]) from None
    with lock:
        yield


@contextmanager
def _disk_trouble_said() -> Iterator[None]:
    """A full or read-only disk is a sentence, not a traceback."""
    try:
        yield
    except OSError as problem:
        raise StorageUnavailable(problem=f"{problem.strerror} ({problem.filename or 'no file named'})") from problem


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stderr.flush()
    # A request that outlasted the grace period sits in a thread that Python would wait for, for ever.
    os._exit(code)
