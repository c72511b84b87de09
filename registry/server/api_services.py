"""``/api/v1/endpoints``: ask for deployments, split traffic, let go. The controller works towards what is written here."""

from __future__ import annotations

from flask import Blueprint, Response

from hedgerow.contracts.api import DeployImage, Page, SetTraffic
from registry.server.http import answer, context, needs, no_content, page_arguments, read_body
from registry.store import activities, services


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("services", __name__, url_prefix="/api/v1/endpoints")
    blueprint.get("")(list_endpoints)
    blueprint.get("/<endpoint>")(show_endpoint)
    blueprint.delete("/<endpoint>")(delete_endpoint)
    blueprint.put("/<endpoint>/traffic")(set_traffic)
    blueprint.put("/<endpoint>/deployments/<deployment>")(deploy_image)
    blueprint.delete("/<endpoint>/deployments/<deployment>")(delete_deployment)
    return blueprint


@needs("contributor")
def deploy_image(endpoint: str, deployment: str) -> Response:
    """202 with the Activity that ends when the replicas are ready and requests reach them, or why they never will."""
    here = context()
    wanted = read_body(DeployImage)
    with here.database.write() as connection:
        activity_id = services.deploy(connection, endpoint, deployment, wanted, here.clock.now())
        activity = activities.get(connection, activity_id)
    here.wakeups.wake("controller")
    return answer(activity, 202)


@needs("reader")
def list_endpoints() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = services.newest(connection, limit, after)
    return answer(Page(items=found, next=following))


@needs("reader")
def show_endpoint(endpoint: str) -> Response:
    with context().database.read() as connection:
        return answer(services.get(connection, endpoint))


@needs("contributor")
def set_traffic(endpoint: str) -> Response:
    here = context()
    wanted = read_body(SetTraffic)
    with here.database.write() as connection:
        changed = services.set_traffic(connection, endpoint, wanted)
    here.wakeups.wake("controller")
    return answer(changed)


@needs("contributor")
def delete_endpoint(endpoint: str) -> Response:
    here = context()
    with here.database.write() as connection:
        services.delete_endpoint(connection, endpoint)
    here.wakeups.wake("controller")
    return no_content()


@needs("contributor")
def delete_deployment(endpoint: str, deployment: str) -> Response:
    here = context()
    with here.database.write() as connection:
        services.delete_deployment(connection, endpoint, deployment)
    here.wakeups.wake("controller")
    return no_content()
