"""Wheels of the agent that edge deployments name: blobs that nothing takes away as long as a device may have to fetch them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, select

from hedgerow.contracts.edge import EdgeDeployment
from registry.blobs.errors import BlobMissing
from registry.store import blobs
from registry.store.tables import edge_revisions, edge_wheels
from registry.store.upsert import insert


def hold(connection: Connection, stored: EdgeDeployment, now: datetime) -> None:
    """Keep the wheel of ``stored``, a revision that was just written, and let go of those that no kept revision names.

    Raises BlobMissing.
    """
    name, wheel = stored.name, stored.agent.wheel if stored.agent else None
    query = select(func.min(edge_revisions.c.revision)).where(edge_revisions.c.edge_deployment == name)
    kept = connection.execute(query).scalar_one()
    oldest = stored.revision if kept is None else min(kept, stored.revision)
    connection.execute(delete(edge_wheels).where(edge_wheels.c.edge_deployment == name, edge_wheels.c.revision < oldest))
    if wheel is None:
        return
    # The lease also locks the row: a collection that goes on meanwhile sees this reference, or was before it.
    if wheel not in blobs.lease(connection, [wheel], now):
        raise BlobMissing(path="the agent's wheel", digest=wheel)
    statement = insert(connection, edge_wheels).values(edge_deployment=name, digest=wheel, revision=stored.revision)
    columns = [edge_wheels.c.edge_deployment, edge_wheels.c.digest]
    newest = {"revision": statement.excluded.revision}
    connection.execute(statement.on_conflict_do_update(index_elements=columns, set_=newest))
