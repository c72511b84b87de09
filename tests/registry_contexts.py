"""A ServerContext without a server: for tests that look at the application itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hedgerow.clock import SystemClock
from registry.blobs import FolderStore
from registry.server.context import ServerContext
from registry.settings import ServerSettings
from registry.store.database import open_database
from registry.wakeups_socket import SocketWakeups
from registry.workspace import open_workspace
from tests.registry_stores import bring_up


@contextmanager
def server_context(folder: Path, url: str | None = None, **settings: object) -> Iterator[ServerContext]:
    """On a fresh workspace below ``folder``."""
    workspace = open_workspace(folder / "workspace")
    database = open_database(url, workspace.folder)
    wakeups = SocketWakeups(workspace.run)
    try:
        bring_up(database, workspace)
        yield ServerContext(
            workspace=workspace,
            database=database,
            blobs=FolderStore(workspace.blobs),
            wakeups=wakeups,
            clock=SystemClock(),
            settings=dataclasses.replace(ServerSettings(workspace=workspace.folder), **settings),  # type: ignore[arg-type]  # test data
        )
    finally:
        database.close()
        wakeups.close()
