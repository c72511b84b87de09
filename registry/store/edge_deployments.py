"""Edge deployments: the operators' manifests, each under its name, with images pinned to a version.

Deleting one takes it from its devices: they get the next deployment that matches them, or an empty desired state, which
stops their modules (``registry.hub.compose``). Nothing keeps running without anybody being in charge of it.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, select, update

from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import EdgeDeployment
from registry.errors import RecordNotFound
from registry.store.tables import edge_deployments, twins
from registry.store.time_text import to_text


def put(connection: Connection, manifest: EdgeDeployment, now: datetime) -> EdgeDeployment:
    """Store ``manifest`` under its name: the next revision, unless nothing changed. ``created_at`` stays the first one's."""
    row = connection.execute(
        select(edge_deployments.c.document).where(edge_deployments.c.name == manifest.name).with_for_update()
    ).one_or_none()
    if row is None:
        stored = msgspec.structs.replace(manifest, revision=1, created_at=now)
        connection.execute(
            edge_deployments.insert().values(
                name=stored.name,
                revision=1,
                target=stored.target,
                priority=stored.priority,
                document=encode(stored).decode(),
                created_at=to_text(now),
            )
        )
        return stored
    before = decode(row.document, EdgeDeployment)
    same = msgspec.structs.replace(manifest, revision=before.revision, created_at=before.created_at)
    if same == before:
        return before
    stored = msgspec.structs.replace(same, revision=before.revision + 1)
    connection.execute(
        update(edge_deployments)
        .where(edge_deployments.c.name == stored.name)
        .values(revision=stored.revision, target=stored.target, priority=stored.priority, document=encode(stored).decode())
    )
    return stored


def get(connection: Connection, name: str) -> EdgeDeployment:
    """Raises RecordNotFound."""
    row = connection.execute(select(edge_deployments.c.document).where(edge_deployments.c.name == name)).one_or_none()
    if row is None:
        raise RecordNotFound(kind="edge deployment", name=name, command="edge")
    return decode(row.document, EdgeDeployment)


def every(connection: Connection) -> list[EdgeDeployment]:
    """All of them; composition needs them all."""
    rows = connection.execute(select(edge_deployments.c.document).order_by(edge_deployments.c.name))
    return [decode(row.document, EdgeDeployment) for row in rows]


def page(connection: Connection, limit: int, after: str | None) -> tuple[list[EdgeDeployment], str | None]:
    """By name, with the ``after`` of the following page (None at the end)."""
    query = select(edge_deployments.c.document).order_by(edge_deployments.c.name).limit(limit + 1)
    if after is not None:
        query = query.where(edge_deployments.c.name > after)
    found = [decode(row.document, EdgeDeployment) for row in connection.execute(query)]
    return found[:limit], found[limit - 1].name if len(found) > limit else None


def remove(connection: Connection, name: str) -> EdgeDeployment:
    """Delete a deployment and take it from its devices; returns what it was. Wake the hub after the commit.

    Raises RecordNotFound.
    """
    found = get(connection, name)
    # The hub sees that these twins' content has no source any more and composes them again.
    connection.execute(update(twins).where(twins.c.edge_deployment == name).values(edge_deployment=None, edge_revision=None))
    connection.execute(delete(edge_deployments).where(edge_deployments.c.name == name))
    return found
