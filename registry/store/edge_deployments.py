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
from hedgerow.contracts.foreign_image import is_foreign
from hedgerow.contracts.names import Reference
from registry.errors import RecordNotFound
from registry.store import edge_revisions, edge_wheels, images, rollouts
from registry.store.matching import name_matches
from registry.store.tables import edge_deployments, edge_images, twins
from registry.store.time_text import to_text
from registry.store.upsert import insert


def put(connection: Connection, manifest: EdgeDeployment, now: datetime) -> EdgeDeployment:
    """Store ``manifest`` under its name: the next revision, unless nothing changed. ``created_at`` stays the first one's.

    Images that it names by version or digest are held from now on: they cannot be deleted. Raises RecordNotFound (an image).
    """
    stored, before = _write(connection, manifest, now)
    if before is None or stored.revision != before.revision:
        if before is not None:
            edge_revisions.keep(connection, before)
        rollouts.follow(connection, before, stored, now)
        if before is not None:
            edge_revisions.forget_unneeded(connection, stored.name, before.revision)
    _hold_what_it_names(connection, stored, now)
    return stored


def restore(connection: Connection, name: str, revision: int | None, now: datetime) -> EdgeDeployment:
    """What ``revision`` said becomes the next one, for every device at once; None: nothing is for any device any more.

    Raises RecordNotFound: the deployment, the revision, or an image that it names; BlobMissing: its wheel of the agent.
    """
    before = get(connection, name, lock=True)
    wanted = msgspec.structs.replace(before, target="") if revision is None else edge_revisions.get(connection, name, revision)
    stored = msgspec.structs.replace(wanted, revision=before.revision + 1, created_at=before.created_at)
    edge_revisions.keep(connection, before)
    _store(connection, stored)
    _hold_what_it_names(connection, stored, now)
    return stored


def _hold_what_it_names(connection: Connection, stored: EdgeDeployment, now: datetime) -> None:
    edge_wheels.hold(connection, stored, now)
    # Also when nothing changed: a manifest that an older Hedgerow stored has no rows yet.
    connection.execute(delete(edge_images).where(edge_images.c.edge_deployment == stored.name))
    rows = []
    named = [(module + use, text) for module, spec in sorted(stored.modules.items()) for use, text in spec.images().items()]
    for module, text in named:
        reference = None if is_foreign(text) else Reference.parse(text)
        if reference is not None and (reference.version or reference.digest):
            image = images.hold(connection, reference)
            pinned = {"image_name": image.name, "image_version": image.version}
            rows.append({"edge_deployment": stored.name, "module": module, **pinned})
    if rows:
        connection.execute(edge_images.insert(), rows)
    edge_revisions.hold_images(connection, stored.name)


def _write(connection: Connection, manifest: EdgeDeployment, now: datetime) -> tuple[EdgeDeployment, EdgeDeployment | None]:
    """What is stored now, and what was before (the same when nothing changed)."""
    first = msgspec.structs.replace(manifest, revision=1, created_at=now)
    # One statement, so that of two first ones at once the second finds what the first one made.
    added = connection.execute(
        insert(connection, edge_deployments)
        .values(
            name=first.name,
            revision=1,
            target=first.target,
            priority=first.priority,
            document=encode(first).decode(),
            created_at=to_text(now),
        )
        .on_conflict_do_nothing(index_elements=[edge_deployments.c.name])
        .returning(edge_deployments.c.name)
    )
    if added.one_or_none() is not None:
        return first, None
    before = get(connection, manifest.name, lock=True)
    same = msgspec.structs.replace(manifest, revision=before.revision, created_at=before.created_at)
    if same == before:
        return before, before
    stored = msgspec.structs.replace(same, revision=before.revision + 1)
    _store(connection, stored)
    return stored, before


def _store(connection: Connection, stored: EdgeDeployment) -> None:
    connection.execute(
        update(edge_deployments)
        .where(edge_deployments.c.name == stored.name)
        .values(revision=stored.revision, target=stored.target, priority=stored.priority, document=encode(stored).decode())
    )


def get(connection: Connection, name: str, *, lock: bool = False) -> EdgeDeployment:
    """``lock`` for whoever decides by what it reads. Raises RecordNotFound."""
    found = find(connection, name, lock=lock)
    if found is None:
        raise RecordNotFound(kind="edge deployment", name=name, command="edge")
    return found


def find(connection: Connection, name: str, *, lock: bool = True) -> EdgeDeployment | None:
    """None when there is none of this name. Nobody else changes it before this transaction ends, if ``lock``."""
    query = select(edge_deployments.c.document).where(edge_deployments.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else decode(row.document, EdgeDeployment)


def every(connection: Connection, *, hold: bool = False) -> list[EdgeDeployment]:
    """All of them; composition needs them all. ``hold``: nobody changes or deletes one before this transaction ends."""
    query = select(edge_deployments.c.document).order_by(edge_deployments.c.name)
    rows = connection.execute(query.with_for_update(read=True) if hold else query)
    return [decode(row.document, EdgeDeployment) for row in rows]


def page(
    connection: Connection, limit: int, after: str | None, *, name: str | None = None
) -> tuple[list[EdgeDeployment], str | None]:
    """By name, with the ``after`` of the following page (None at the end)."""
    query = select(edge_deployments.c.document).order_by(edge_deployments.c.name).limit(limit + 1)
    if name is not None:
        query = query.where(name_matches(edge_deployments.c.name, name, "edge deployment"))
    if after is not None:
        query = query.where(edge_deployments.c.name > after)
    found = [decode(row.document, EdgeDeployment) for row in connection.execute(query)]
    return found[:limit], found[limit - 1].name if len(found) > limit else None


def remove(connection: Connection, name: str) -> EdgeDeployment:
    """Delete a deployment and take it from its devices; returns what it was. Wake the hub after the commit.

    Raises RecordNotFound.
    """
    found = get(connection, name, lock=True)
    # The hub sees that these twins' content has no source any more and composes them again.
    connection.execute(update(twins).where(twins.c.edge_deployment == name).values(edge_deployment=None, edge_revision=None))
    connection.execute(delete(edge_deployments).where(edge_deployments.c.name == name))
    return found
