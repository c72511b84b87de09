"""``/api/v1/workspace``: what this workspace is and which of its processes run. ``/healthz``: whether this one does."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Response

import hedgerow
from hedgerow.contracts.api import RoleStatus, WorkspaceInfo
from hedgerow.process.lock import lock_holder
from registry.server.http import answer, context
from registry.server.operation import operation
from registry.store import facts
from registry.workspace import ROLES


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("workspace", __name__)
    blueprint.get("/api/v1/workspace")(show_workspace)
    blueprint.get("/healthz")(healthz)
    return blueprint


@operation("Show the workspace", "reader", scope="workspace", result=WorkspaceInfo)
def show_workspace() -> Response:
    """Its identity, its addresses, and which of its processes run."""
    here = context()
    with here.database.read() as connection:
        incarnation = facts.incarnation(connection)
    return answer(
        WorkspaceInfo(
            workspace_id=here.workspace.id,
            incarnation=incarnation,
            hedgerow_version=hedgerow.__version__,
            url=here.settings.url,
            broker_url=without_password(here.settings.broker_url),
            roles=[RoleStatus(role=role, pid=lock_holder(here.workspace.role_lock(role))) for role in ROLES],
        )
    )


def healthz() -> Response:
    """Open to everybody: says only that requests are answered."""
    return Response("ok\n", mimetype="text/plain")


def without_password(url: str) -> str:
    """``url`` as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
