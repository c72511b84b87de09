"""``/api/v1/devices``, ``/edge-deployments``, ``/fleet/events``: enrol devices and say what they should run.

Nothing here speaks to a device: the hub is woken after the commit and does. Telemetry is in ``api_telemetry.py``.
"""

from __future__ import annotations

import base64

import msgspec
from flask import Blueprint, Response, request

from hedgerow.contracts.api import DeviceTwin, EnrollDevice, EnrolledDevice, Page
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.names import check_name
from hedgerow.contracts.seal import device_key
from hedgerow.errors import InvalidDocument
from registry.hub.desired import read_envelope
from registry.hub.manifest import check_manifest
from registry.hub.preview import preview
from registry.server import api_telemetry
from registry.server.context import ServerContext
from registry.server.errors import InvalidArgument
from registry.server.fleet_metrics import collect_metrics
from registry.server.http import answer, context, needs, no_content, page_arguments, read_body
from registry.store import edge_deployments, fleet, tokens, twins

__all__ = ["collect_metrics", "routes"]

_MAX_NUMBER = 2**31 - 1


def routes() -> Blueprint:
    """The routes of this module and of ``api_telemetry``."""
    blueprint = Blueprint("fleet", __name__, url_prefix="/api/v1")
    blueprint.post("/devices")(enroll_device)
    blueprint.get("/devices")(list_devices)
    blueprint.get("/devices/<name>")(show_device)
    blueprint.delete("/devices/<name>")(delete_device)
    blueprint.post("/devices/<name>/revoke")(revoke_device)
    blueprint.get("/devices/<name>/twin")(show_twin)
    blueprint.get("/edge-deployments")(list_deployments)
    blueprint.put("/edge-deployments/<name>")(put_deployment)
    blueprint.get("/edge-deployments/<name>")(show_deployment)
    blueprint.delete("/edge-deployments/<name>")(delete_deployment)
    blueprint.get("/fleet/events")(list_events)
    api_telemetry.add_routes(blueprint)
    return blueprint


@needs("contributor")
def enroll_device() -> Response:
    """The only answer that ever shows the device's key and token."""
    here = context()
    wanted = read_body(EnrollDevice)
    now = here.clock.now()
    with here.database.write() as connection:
        device = fleet.enroll(connection, wanted, now)
        token = tokens.create(connection, name=device.name, role="device", subject=device.uuid, now=now)
    here.wakeups.wake("hub")
    config = DeviceConfig(
        device_uuid=device.uuid,
        name=device.name,
        workspace_id=here.workspace.id,
        topic_prefix=here.workspace.topic_prefix,
        broker_url=here.settings.broker_url,
        registry_url=here.settings.url,
        device_key=_new_device_key(here, device.uuid),
        pull_token=token.secret or "",
        trusted_keys=[here.workspace.trusted_key],
        tags=device.tags,
    )
    return answer(EnrolledDevice(device=device, config=config), 201, {"Cache-Control": "no-store"})


def _new_device_key(here: ServerContext, device_uuid: str) -> str:
    return base64.b64encode(device_key(here.workspace.device_master, device_uuid, fleet.FIRST_KEY_GENERATION)).decode()


@needs("reader")
def list_devices() -> Response:
    here = context()
    limit, after = page_arguments()
    with here.database.read() as connection:
        found, following = fleet.page(connection, limit, after, here.clock.now())
    return answer(Page(items=found, next=following))


@needs("reader")
def show_device(name: str) -> Response:
    here = context()
    with here.database.read() as connection:
        return answer(fleet.get(connection, check_name(name, "device"), here.clock.now()))


@needs("contributor")
def delete_device(name: str) -> Response:
    here = context()
    now = here.clock.now()
    with here.database.write() as connection:
        device = fleet.forget(connection, check_name(name, "device"), now)
        tokens.revoke_for(connection, "device", device.uuid, now)
    here.wakeups.wake("hub")
    return no_content()


@needs("contributor")
def revoke_device(name: str) -> Response:
    """The device stays in the list, nothing of it is taken any more."""
    here = context()
    now = here.clock.now()
    with here.database.write() as connection:
        device = fleet.revoke(connection, check_name(name, "device"), now)
        tokens.revoke_for(connection, "device", device.uuid, now)
    here.wakeups.wake("hub")
    return answer(device)


@needs("reader")
def show_twin(name: str) -> Response:
    here = context()
    with here.database.read() as connection:
        device = fleet.get(connection, check_name(name, "device"), here.clock.now())
        envelope = twins.desired_envelopes(connection, [device.uuid]).get(device.uuid)
    desired = None if envelope is None else read_envelope(envelope)
    return answer(DeviceTwin(device=device.name, desired=desired, reported=device.reported, seen_at=device.seen_at))


@needs("reader")
def list_deployments() -> Response:
    limit, after = page_arguments()
    with context().database.read() as connection:
        found, following = edge_deployments.page(connection, limit, after)
    return answer(Page(items=found, next=following))


@needs("contributor")
def put_deployment(name: str) -> Response:
    """Create or replace. With ``?dry_run=true`` only an EdgePlan: which devices, and what would change on them."""
    here = context()
    wanted = read_body(EdgeDeployment)
    if wanted.name != check_name(name, "edge deployment"):
        raise InvalidDocument(document="EdgeDeployment", problem=f"its name is {wanted.name!r}, the address says {name!r}")
    now = here.clock.now()
    if _dry_run():
        with here.database.read() as connection:
            deployments = {one.name: one for one in edge_deployments.every(connection)}
            # Among equals the newest wins, so a replaced one keeps its age here as it does when it is stored.
            created_at = deployments[name].created_at if name in deployments else now
            deployments[name] = msgspec.structs.replace(check_manifest(connection, wanted), created_at=created_at)
            return answer(preview(connection, deployments.values(), name))
    with here.database.write() as connection:
        stored = edge_deployments.put(connection, check_manifest(connection, wanted), now)
    here.wakeups.wake("hub")
    return answer(stored)


@needs("reader")
def show_deployment(name: str) -> Response:
    with context().database.read() as connection:
        return answer(edge_deployments.get(connection, check_name(name, "edge deployment")))


@needs("contributor")
def delete_deployment(name: str) -> Response:
    """Its devices get the next deployment that matches, or an empty desired state. ``?dry_run=true`` answers an EdgePlan."""
    here = context()
    check_name(name, "edge deployment")
    if _dry_run():
        with here.database.read() as connection:
            edge_deployments.get(connection, name)
            others = [one for one in edge_deployments.every(connection) if one.name != name]
            return answer(preview(connection, others, name))
    with here.database.write() as connection:
        edge_deployments.remove(connection, name)
    here.wakeups.wake("hub")
    return no_content()


@needs("reader")
def list_events() -> Response:
    """Newest first; ``?device=NAME`` for one device."""
    here = context()
    limit, after = page_arguments()
    if after is not None and not (after.isascii() and after.isdigit() and len(after) <= 10 and int(after) <= _MAX_NUMBER):
        raise InvalidArgument(name="after", value=after[:80], hint="Use the `next` of the page before.")
    with here.database.read() as connection:
        name = request.args.get("device")
        uuid = None if name is None else fleet.get(connection, check_name(name, "device"), here.clock.now()).uuid
        found = fleet.events_before(connection, limit + 1, int(after) if after else None, uuid)
    return answer(Page(items=found[:limit], next=str(found[limit - 1].number) if len(found) > limit else None))


def _dry_run() -> bool:
    text = request.args.get("dry_run", "false")
    if text not in ("true", "false"):
        raise InvalidArgument(name="dry_run", value=text[:80], hint="Use true or false.")
    return text == "true"
