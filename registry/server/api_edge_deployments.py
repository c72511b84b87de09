"""``/api/v1/edge-deployments``: what devices that match a condition should run. The hub is woken and tells them."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import EdgePlan
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.foreign_image import is_foreign
from hedgerow.contracts.names import check_known_name, check_name
from hedgerow.errors import InvalidDocument
from registry.errors import PreconditionFailed, RecordNotFound
from registry.hub.errors import ForeignImageUnresolved, ManifestInvalid, ShadowInvalid, TargetInvalid
from registry.hub.foreign_images import resolve_foreign, with_own_names
from registry.hub.manifest import MAX_MANIFEST_BYTES, check_manifest
from registry.hub.preview import Steps, preview
from registry.hub.target import only_names, parse_target
from registry.server import arguments
from registry.server.http import (
    answer,
    answer_tagged,
    check_scope,
    context,
    no_content,
    page_arguments,
    read_body,
    tell,
    write_once,
)
from registry.server.operation import PAGE, QueryField, operation
from registry.server.remote_digests import remote_digests
from registry.server.revisions import check_revision
from registry.store import edge_deployments, fleet

_KIND = "edge deployment"
# Written with more blanks than it is kept with.
_BODY_BYTES = 2 * MAX_MANIFEST_BYTES
_NAME = QueryField("name", "a name, or how names begin with a star behind it (`line-*`)")
_DRY_RUN = QueryField("dry_run", "`true`: change nothing, answer which devices it is for and what would change", "boolean")

_STEPS = QueryField("steps", "`true`, with `dry_run`: also the steps that each device would take, in their order", "boolean")
_DEVICE = QueryField("device", "with `steps`: only this device")


def add_routes(blueprint: Blueprint) -> None:
    """Put this module's routes below ``blueprint``'s prefix."""
    blueprint.get("/edge-deployments")(list_edge_deployments)
    blueprint.put("/edge-deployments/<name>")(put_edge_deployment)
    blueprint.get("/edge-deployments/<name>")(show_edge_deployment)
    blueprint.delete("/edge-deployments/<name>")(delete_edge_deployment)


@operation("List edge deployments", "reader", scope="edge-deployments", result=Page[EdgeDeployment], query=(*PAGE, _NAME))
def list_edge_deployments() -> Response:
    """By name."""
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = edge_deployments.page(connection, limit, after, name=arguments.text("name"))
    return answer(Page(items=found, next=following))


@operation(
    "Create or replace an edge deployment",
    "contributor",
    scope="edge-deployments",
    body=EdgeDeployment,
    result=EdgeDeployment | EdgePlan,
    query=(_DRY_RUN, _STEPS, _DEVICE),
    errors=(RecordNotFound, TargetInvalid, ManifestInvalid, ShadowInvalid, ForeignImageUnresolved, PreconditionFailed),
)
def put_edge_deployment(name: str) -> Response:
    """The next revision, unless nothing changed. Image references are pinned to versions, tags of other registries to digests.

    With `dry_run` only an EdgePlan: which devices it aims at, and what would change on them; with `steps` also how.
    """
    here = context()
    wanted = with_own_names(read_body(EdgeDeployment, limit_bytes=_BODY_BYTES), urlsplit(here.settings.url).netloc)
    if wanted.name != check_known_name(name, _KIND):
        raise InvalidDocument(document="EdgeDeployment", problem=f"its name is {wanted.name!r}, the address says {name!r}")
    for module in wanted.modules.values():
        for image in module.images().values():
            # Somebody else's image is none that a scope could name.
            check_scope("images", "*" if is_foreign(image) else image)
    # Whose tags match may change: only a target of names is narrower than the whole fleet.
    names = only_names(parse_target(wanted.target))
    for device in ["*"] if names is None else sorted(names):
        check_scope("devices", device)
    wanted = _resolved(wanted)
    if arguments.flag("dry_run"):
        return answer(_plan_of_put(wanted))

    def put(connection: Connection) -> Response:
        before = edge_deployments.find(connection, name)
        check_revision(_KIND, name, None if before is None else before.revision)
        _check_new_names(wanted, before)
        stored = edge_deployments.put(connection, check_manifest(connection, wanted), here.clock.now())
        if before is None or stored.revision != before.revision:
            kind = "edge-deployment.created" if before is None else "edge-deployment.changed"
            tell(connection, kind, f"edge-deployment/{name}", revision=str(stored.revision), target=stored.target[:500])
        return answer_tagged(stored, str(stored.revision))

    answered = write_once(put)
    here.wakeups.wake("hub")
    return answered


def _resolved(wanted: EdgeDeployment) -> EdgeDeployment:
    """With a digest in every reference to a foreign image; before any transaction, because registries are asked."""
    if not any(module.image is not None and is_foreign(module.image) for module in wanted.modules.values()):
        return wanted
    here = context()
    with here.database.read() as connection:
        before = edge_deployments.find(connection, wanted.name, lock=False)
    return resolve_foreign(wanted, before, remote_digests(here.settings))


def _check_new_names(wanted: EdgeDeployment, before: EdgeDeployment | None) -> None:
    """A manifest may keep names that 0.1.0 took: under another one, a module on a device would be another module.

    Raises InvalidName.
    """
    if before is None:
        check_name(wanted.name, _KIND)
    for module in sorted(wanted.modules.keys() - (before.modules.keys() if before is not None else set())):
        check_name(module, "module")


def _plan_of_put(wanted: EdgeDeployment) -> EdgePlan:
    here = context()
    with here.database.read() as connection:
        deployments = {one.name: one for one in edge_deployments.every(connection)}
        _check_new_names(wanted, deployments.get(wanted.name))
        # Among equals the newest wins, so a replaced one keeps its age here as it does when it is stored.
        created_at = deployments[wanted.name].created_at if wanted.name in deployments else here.clock.now()
        deployments[wanted.name] = msgspec.structs.replace(check_manifest(connection, wanted), created_at=created_at)
        return preview(connection, deployments.values(), wanted.name, _steps(connection))


def _steps(connection: Connection) -> Steps | None:
    """Raises RecordNotFound for a device that is not there."""
    device = arguments.text("device")
    if device is not None:
        fleet.get(connection, device, context().clock.now())
    return Steps(device) if device is not None or arguments.flag("steps") else None


@operation("Show an edge deployment", "reader", scope="edge-deployments", result=EdgeDeployment)
def show_edge_deployment(name: str) -> Response:
    """The manifest as it is stored, with its images pinned."""
    with context().database.read() as connection:
        found = edge_deployments.get(connection, check_known_name(name, _KIND))
    return answer_tagged(found, str(found.revision))


@operation(
    "Delete an edge deployment",
    "contributor",
    scope="edge-deployments",
    query=(_DRY_RUN,),
    errors=(PreconditionFailed,),
    also=((200, EdgePlan),),
)
def delete_edge_deployment(name: str) -> Response:
    """Its devices get the next deployment that matches them, or an empty desired state. With `dry_run` only an EdgePlan."""
    here = context()
    check_known_name(name, _KIND)
    if arguments.flag("dry_run"):
        with here.database.read() as connection:
            edge_deployments.get(connection, name)
            others = [one for one in edge_deployments.every(connection) if one.name != name]
            return answer(preview(connection, others, name))

    def delete(connection: Connection) -> Response:
        check_revision(_KIND, name, edge_deployments.get(connection, name, lock=True).revision)
        edge_deployments.remove(connection, name)
        tell(connection, "edge-deployment.deleted", f"edge-deployment/{name}")
        return no_content()

    answered = write_once(delete)
    here.wakeups.wake("hub")
    return answered
