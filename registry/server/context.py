"""What a request handler may use: made once by the composition root (``registry/server/__main__.py``)."""

from __future__ import annotations

from dataclasses import dataclass

from hedgerow.clock import Clock
from hedgerow.contracts.api import Role
from registry.blobs import BlobStore
from registry.settings import ServerSettings
from registry.store.database import Database
from registry.wakeups import Wakeups
from registry.workspace import Workspace


@dataclass(frozen=True)
class ServerContext:
    """The parts of one running server. Handlers get it from :func:`registry.server.http.context`."""

    workspace: Workspace
    database: Database
    blobs: BlobStore
    wakeups: Wakeups
    clock: Clock
    settings: ServerSettings


@dataclass(frozen=True)
class Caller:
    """Who sent the request. ``subject`` is the device's uuid or the run's id that the token is bound to, else ``""``.

    ``scopes`` empty: everything that the role may. ``grants`` are those of a registry token (``oci_grants.py``), None for
    every other token.
    """

    token_id: str
    name: str
    role: Role
    subject: str
    scopes: tuple[str, ...] = ()
    grants: frozenset[tuple[str, str]] | None = None
