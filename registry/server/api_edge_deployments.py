"""``/api/v1/edge-deployments``: what devices that match a condition should run. The hub is woken and tells them."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import EdgePlan, Page
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.names import check_known_name, check_name
from hedgerow.errors import InvalidDocument
from registry.errors import PreconditionFailed, RecordNotFound
from registry.hub.errors import ManifestInvalid, TargetInvalid
from registry.hub.manifest import check_manifest
from registry.hub.preview import preview
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
from registry.server.revisions import check_revision
from registry.store import edge_deployments

_KIND = "edge deployment"
_NAME = QueryField("name", "a name, or how names begin with a star behind it (`line-*`)")
_DRY_RUN = QueryField("dry_run", "`true`: change nothing, answer which devices it is for and what would change", "boolean")


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
    query=(_DRY_RUN,),
    errors=(RecordNotFound, TargetInvalid, ManifestInvalid, PreconditionFailed),
)
def put_edge_deployment(name: str) -> Response:
    """The next revision, unless nothing changed. Image references are pinned to versions.

    With `dry_run` only an EdgePlan: which devices it aims at, and what would change on them.
    """
    here = context()
    wanted = read_body(EdgeDeployment)
    if wanted.name != check_known_name(name, _KIND):
        raise InvalidDocument(document="EdgeDeployment", problem=f"its name is {wanted.name!r}, the address says {name!r}")
    for module in wanted.modules.values():
        if module.image is not None:
            check_scope("images", module.image)
    # Whose tags match may change: only a target of names is narrower than the whole fleet.
    names = only_names(parse_target(wanted.target))
    for device in ["*"] if names is None else sorted(names):
        check_scope("devices", device)
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
        return preview(connection, deployments.values(), wanted.name)


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
