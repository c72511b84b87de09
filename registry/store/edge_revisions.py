"""Revisions of before of edge deployments: what devices still have, or may get again, while a newer one is rolled out."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, select

from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.foreign_image import is_foreign
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import Reference
from registry.errors import RecordNotFound
from registry.store import images
from registry.store.tables import edge_images, edge_revisions, edge_rollouts
from registry.store.upsert import insert

# Behind a module's name, which holds no blank: an image that it had in an earlier revision.
_MARK = " (revision "


def keep(connection: Connection, deployment: EdgeDeployment) -> None:
    """Remember this revision; again changes nothing."""
    row = {
        "edge_deployment": deployment.name,
        "revision": deployment.revision,
        "document": encode(deployment).decode(),
    }
    connection.execute(insert(connection, edge_revisions).values(row).on_conflict_do_nothing())


def kept(connection: Connection, name: str) -> dict[int, EdgeDeployment]:
    """Every remembered revision of this edge deployment."""
    query = select(edge_revisions.c.revision, edge_revisions.c.document).where(edge_revisions.c.edge_deployment == name)
    return {row.revision: decode(row.document, EdgeDeployment) for row in connection.execute(query)}


def get(connection: Connection, name: str, revision: int) -> EdgeDeployment:
    """Raises RecordNotFound."""
    found = kept(connection, name).get(revision)
    if found is None:
        raise RecordNotFound(kind="revision", name=f"{revision} of edge deployment {name}", command="edge")
    return found


def hold_images(connection: Connection, name: str) -> None:
    """While a rollout of this deployment is under way: the images of earlier revisions cannot be deleted.

    Called when the deployment's own rows were written anew.
    """
    if not _is_under_way(connection, name):
        return
    rows = [
        {
            "edge_deployment": name,
            "module": f"{module}{use}{_MARK}{revision})",
            "image_name": image.name,
            "image_version": image.version,
        }
        for revision, deployment in sorted(kept(connection, name).items())
        for module, spec in sorted(deployment.modules.items())
        for use, reference in spec.images().items()
        if (image := _held(connection, reference)) is not None
    ]
    if rows:
        connection.execute(edge_images.insert(), rows)


def forget_unneeded(connection: Connection, name: str, before: int) -> None:
    """A new revision was stored: unless it is rolled out, only the one ``before`` it is remembered."""
    if not _is_under_way(connection, name):
        forget_others(connection, name, [before])


def let_go(connection: Connection, name: str, *, but: int | None) -> None:
    """A rollout is over: of earlier revisions only ``but`` is remembered, and no image is held for one."""
    forget_others(connection, name, [] if but is None else [but])
    connection.execute(delete(edge_images).where(edge_images.c.edge_deployment == name, edge_images.c.module.contains(_MARK)))


def _is_under_way(connection: Connection, name: str) -> bool:
    mine = edge_rollouts.c.edge_deployment == name
    query = select(edge_rollouts.c.id).where(mine, edge_rollouts.c.state.in_(("running", "paused")))
    return connection.execute(query.limit(1)).first() is not None


def _held(connection: Connection, image: str) -> ImageRecord | None:
    """None for one of elsewhere, and for one that was deleted by force: devices that have it keep it."""
    if is_foreign(image):
        return None
    try:
        return images.hold(connection, Reference.parse(image))
    except RecordNotFound:
        return None


def forget_others(connection: Connection, name: str, wanted: Iterable[int]) -> None:
    """Forget all revisions but ``wanted``."""
    mine = edge_revisions.c.edge_deployment == name
    connection.execute(delete(edge_revisions).where(mine, edge_revisions.c.revision.not_in(sorted(set(wanted)))))
