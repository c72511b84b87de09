"""``/api/v1/endpoints``: ask for deployments, split traffic, let go. The controller works towards what is written here."""

from __future__ import annotations

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import DeployImage, Page, SetTraffic
from hedgerow.contracts.service import Deployment, Endpoint
from hedgerow.contracts.work import Activity
from registry.errors import DeploymentRefused, PreconditionFailed, RecordNotFound, RevisionConflict, StillServing, TrafficRefused
from registry.server import arguments
from registry.server.http import answer, check_scope, context, no_content, page_arguments, read_body, tell, write_once
from registry.server.operation import PAGE, QueryField, operation
from registry.server.revisions import answer_revised, check_revision
from registry.store import activities, services

_FILTERS = (
    QueryField("name", "an endpoint's name, or how names begin with a star behind it (`team-*`)"),
    QueryField("state", "endpoints with a deployment in this state", choices=("starting", "ready", "degraded", "failed")),
)


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("services", __name__, url_prefix="/api/v1/endpoints")
    blueprint.get("")(list_endpoints)
    blueprint.get("/<endpoint>")(show_endpoint)
    blueprint.delete("/<endpoint>")(delete_endpoint)
    blueprint.put("/<endpoint>/traffic")(set_traffic)
    blueprint.get("/<endpoint>/deployments/<deployment>")(show_deployment)
    blueprint.put("/<endpoint>/deployments/<deployment>")(deploy_image)
    blueprint.delete("/<endpoint>/deployments/<deployment>")(delete_deployment)
    return blueprint


@operation(
    "Deploy an image under an endpoint",
    "contributor",
    scope="endpoints",
    body=DeployImage,
    result=Activity,
    status=202,
    errors=(RecordNotFound, DeploymentRefused, PreconditionFailed),
)
def deploy_image(endpoint: str, deployment: str) -> Response:
    """Makes endpoint and deployment where they are missing; a deployment that is there gets the new image and settings.

    The Activity ends when the replicas are ready and requests reach them, or says why they never will. The first
    deployment of an endpoint gets all its traffic.
    """
    here = context()
    wanted = read_body(DeployImage)
    check_scope("images", wanted.image)

    def deploy(connection: Connection) -> Response:
        _check_deployment(connection, endpoint, deployment)
        activity_id = services.deploy(connection, endpoint, deployment, wanted, here.clock.now())
        made = _deployment(connection, endpoint, deployment)
        kind = "deployment.created" if made.revision == 1 else "deployment.changed"
        image = f"{made.image.name}:{made.image.version}"
        tell(connection, kind, f"deployment/{endpoint}/{deployment}", image=image, digest=made.image.digest)
        return answer(activities.get(connection, activity_id), 202)

    answered = write_once(deploy)
    here.wakeups.wake("controller")
    return answered


@operation("List endpoints", "reader", scope="endpoints", result=Page[Endpoint], query=(*PAGE, *_FILTERS))
def list_endpoints() -> Response:
    """By name, each with its deployments."""
    limit, after = page_arguments()
    wanted = {"name": arguments.text("name"), "state": arguments.text("state")}
    with context().database.read() as connection:
        found, following = services.newest(connection, limit, after, **wanted)
    return answer(Page(items=found, next=following))


@operation("Show an endpoint", "reader", scope="endpoints", result=Endpoint)
def show_endpoint(endpoint: str) -> Response:
    """With its traffic, its deployments and their replicas as the controller last saw them."""
    with context().database.read() as connection:
        found = services.get(connection, endpoint)
    return answer_revised(found, found.revision)


@operation("Show a deployment", "reader", scope="endpoints", result=Deployment)
def show_deployment(endpoint: str, deployment: str) -> Response:
    """With its image, settings and replicas."""
    with context().database.read() as connection:
        found = _deployment(connection, endpoint, deployment)
    return answer_revised(found, found.revision)


@operation(
    "Split an endpoint's traffic",
    "contributor",
    scope="endpoints",
    body=SetTraffic,
    result=Endpoint,
    errors=(TrafficRefused, RevisionConflict, PreconditionFailed),
)
def set_traffic(endpoint: str) -> Response:
    """Percentages by deployment that sum to 100; a deployment that is not named gets none."""
    wanted = read_body(SetTraffic)

    def split(connection: Connection) -> Response:
        _check_endpoint(connection, endpoint)
        changed = services.set_traffic(connection, endpoint, wanted)
        shares = ", ".join(f"{name}={percent}" for name, percent in sorted(changed.traffic.items()))
        tell(connection, "endpoint.traffic-split", f"endpoint/{endpoint}", traffic=shares)
        return answer_revised(changed, changed.revision)

    answered = write_once(split)
    context().wakeups.wake("controller")
    return answered


@operation("Delete an endpoint", "contributor", scope="endpoints", errors=(PreconditionFailed,))
def delete_endpoint(endpoint: str) -> Response:
    """With all its deployments. It cannot be asked for any more at once; its replicas end soon after."""

    def delete(connection: Connection) -> Response:
        _check_endpoint(connection, endpoint)
        services.delete_endpoint(connection, endpoint)
        tell(connection, "endpoint.deleted", f"endpoint/{endpoint}")
        return no_content()

    answered = write_once(delete)
    context().wakeups.wake("controller")
    return answered


@operation("Delete a deployment", "contributor", scope="endpoints", errors=(StillServing, PreconditionFailed))
def delete_deployment(endpoint: str, deployment: str) -> Response:
    """One that gets no traffic, or the last one: the endpoint goes with it."""

    def delete(connection: Connection) -> Response:
        _check_deployment(connection, endpoint, deployment)
        services.delete_deployment(connection, endpoint, deployment)
        tell(connection, "deployment.deleted", f"deployment/{endpoint}/{deployment}")
        return no_content()

    answered = write_once(delete)
    context().wakeups.wake("controller")
    return answered


def _check_endpoint(connection: Connection, endpoint: str) -> None:
    services.lock(connection, endpoint)
    check_revision("endpoint", endpoint, services.get(connection, endpoint).revision)


def _check_deployment(connection: Connection, endpoint: str, deployment: str) -> None:
    """If-Match of a deployment that is not there fails; without If-Match there is nothing to check."""
    services.lock(connection, endpoint)
    found = services.find_deployment(connection, endpoint, deployment)
    check_revision("deployment", f"{endpoint}/{deployment}", None if found is None else found.revision)


def _deployment(connection: Connection, endpoint: str, deployment: str) -> Deployment:
    found = services.find_deployment(connection, endpoint, deployment)
    if found is None:
        raise RecordNotFound(kind="deployment", name=f"{endpoint}/{deployment[:128]}", command="service")
    return found
