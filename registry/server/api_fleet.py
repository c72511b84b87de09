"""``/api/v1/devices``, ``/fleet/events``: enrol devices, look at them, let them go.

Nothing here speaks to a device: the hub is woken after the commit and does. What they should run is in
``api_edge_deployments.py``, what they sent in ``api_telemetry.py``.
"""

from __future__ import annotations

import base64
from typing import Literal, cast, get_args

from flask import Blueprint, Response
from sqlalchemy import Connection

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import ChangeDevice, Device, DeviceTwin, EnrollDevice, EnrolledDevice, FleetEvent
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.names import check_known_name
from hedgerow.contracts.seal import device_key
from registry.errors import InvalidFilter, NameTaken, PreconditionFailed, RecordNotFound
from registry.hub.desired import read_envelope
from registry.identity.authority import authority_certificate
from registry.identity.signing_keys import read_signing_keys
from registry.server import (
    api_agent_release,
    api_desired_state,
    api_device_certificates,
    api_device_keys,
    api_device_methods,
    api_edge_deployments,
    api_module_twins,
    api_rollouts,
    api_telemetry,
    arguments,
)
from registry.server.context import ServerContext
from registry.server.errors import InvalidArgument
from registry.server.fleet_metrics import collect_metrics
from registry.server.http import answer, check_scope, context, no_content, page_arguments, read_body, tell, write_once
from registry.server.operation import PAGE, QueryField, operation
from registry.server.revisions import answer_revised, answer_seen, check_revision, short_digest
from registry.store import device_certificates, fleet, tokens, twins

__all__ = ["collect_metrics", "config_of", "routes"]

_MAX_NUMBER = 2**31 - 1
_MOST_WORDS = 500
_FILTERS = (
    QueryField("name", "a device's name, or how names begin with a star behind it (`press-*`)"),
    QueryField("state", "devices in this state", choices=get_args(fleet.Presence)),
    QueryField("tag", "KEY=VALUE, or KEY for any value; several must all be there", repeated=True),
    QueryField("edge_deployment", "devices that run this edge deployment"),
)


def routes() -> Blueprint:
    """The routes of this module, of ``api_edge_deployments`` and of ``api_telemetry``."""
    blueprint = Blueprint("fleet", __name__, url_prefix="/api/v1")
    blueprint.post("/devices")(enroll_device)
    blueprint.get("/devices")(list_devices)
    blueprint.get("/devices/<name>")(show_device)
    blueprint.patch("/devices/<name>")(change_device)
    blueprint.delete("/devices/<name>")(delete_device)
    blueprint.post("/devices/<name>/revoke")(revoke_device)
    blueprint.get("/devices/<name>/twin")(show_twin)
    blueprint.get("/fleet/events")(list_fleet_events)
    api_edge_deployments.add_routes(blueprint)
    api_rollouts.add_routes(blueprint)
    api_telemetry.add_routes(blueprint)
    api_device_methods.add_routes(blueprint)
    api_module_twins.add_routes(blueprint)
    api_desired_state.add_routes(blueprint)
    api_device_certificates.add_routes(blueprint)
    api_device_keys.add_routes(blueprint)
    api_agent_release.add_routes(blueprint)
    return blueprint


@operation(
    "Enrol a device", "contributor", scope="devices", body=EnrollDevice, result=EnrolledDevice, status=201, errors=(NameTaken,)
)
def enroll_device() -> Response:
    """The only answer that ever shows the device's key and token."""
    here = context()
    wanted = read_body(EnrollDevice)
    check_scope("devices", wanted.name)
    now = here.clock.now()

    def enroll(connection: Connection) -> Response:
        device = fleet.enroll(connection, wanted, now)
        token = tokens.create(connection, name=device.name, role="device", subject=device.uuid, now=now)
        tell(connection, "device.enrolled", f"device/{device.name}", uuid=device.uuid)
        config = config_of(here, device, token.secret or "", fleet.FIRST_KEY_GENERATION)
        return answer(EnrolledDevice(device=device, config=config), 201, {"Cache-Control": "no-store"})

    answered = write_once(enroll)
    here.wakeups.wake("hub")
    here.wakeups.wake("broker")
    return answered


def config_of(here: ServerContext, device: Device, pull_token: str, key_generation: int) -> DeviceConfig:
    """What an agent of ``device`` needs; holds its key of this generation."""
    return DeviceConfig(
        device_uuid=device.uuid,
        name=device.name,
        workspace_id=here.workspace.id,
        topic_prefix=here.workspace.topic_prefix,
        broker_url=here.settings.device_broker_url or here.settings.broker_url,
        broker_login=_broker_login_of(here),
        broker_ca=_authority_of(here),
        registry_url=here.settings.url,
        device_key=_device_key(here, device.uuid, key_generation),
        key_generation=key_generation,
        pull_token=pull_token,
        trusted_keys=read_signing_keys(here.workspace.keys).trusted,
        tags=device.tags,
    )


def _broker_login_of(here: ServerContext) -> Literal["url", "device", "certificate"]:
    if here.settings.device_certificates:
        return "certificate"
    return "device" if here.settings.broker_login == "own" else "url"


def _authority_of(here: ServerContext) -> str:
    path = here.settings.device_broker_ca
    if path is None:
        return ""
    if path == here.workspace.keys / "ca.pem":
        return authority_certificate(here.workspace, here.clock.now()).decode()
    return path.read_text(encoding="ascii")


def _device_key(here: ServerContext, device_uuid: str, generation: int) -> str:
    return base64.b64encode(device_key(here.workspace.device_master, device_uuid, generation)).decode()


@operation("List devices", "reader", scope="devices", result=Page[Device], query=(*PAGE, *_FILTERS), errors=(InvalidFilter,))
def list_devices() -> Response:
    """By name, each with what it last reported."""
    here = context()
    limit, after = page_arguments()
    wanted = fleet.Wanted(
        name=arguments.text("name"),
        state=cast("fleet.Presence | None", arguments.text("state")),
        tags=arguments.texts("tag"),
        edge_deployment=arguments.text("edge_deployment"),
    )
    with here.database.read() as connection:
        found, following = fleet.page(connection, limit, after, here.clock.now(), wanted)
    return answer(Page(items=found, next=following))


@operation("Show a device", "reader", scope="devices", result=Device)
def show_device(name: str) -> Response:
    """With its newest report and whether it is online."""
    here = context()
    with here.database.read() as connection:
        device = fleet.get(connection, check_known_name(name, "device"), here.clock.now())
    return answer_revised(device, _revision(device))


@operation(
    "Change a device's tags", "contributor", scope="devices", body=ChangeDevice, result=Device, errors=(PreconditionFailed,)
)
def change_device(name: str) -> Response:
    """Edge deployments whose condition matches otherwise now reach the device, or leave it, at once."""
    here = context()
    wanted = read_body(ChangeDevice)

    def change(connection: Connection) -> Response:
        device = _expected(connection, name)
        changed = fleet.change_tags(connection, device, wanted.tags, here.clock.now())
        if changed.tags != device.tags:
            words = ", ".join(f"{key}={value}" for key, value in sorted(changed.tags.items()))
            tell(connection, "device.tagged", f"device/{name}", uuid=device.uuid, tags=words[:_MOST_WORDS])
        return answer_revised(changed, _revision(changed))

    answered = write_once(change)
    here.wakeups.wake("hub")
    return answered


@operation("Delete a device", "contributor", scope="devices", errors=(PreconditionFailed,))
def delete_device(name: str) -> Response:
    """Its credentials end with it; its telemetry and events stay under its uuid."""
    here = context()
    now = here.clock.now()

    def delete(connection: Connection) -> Response:
        _expected(connection, name)
        device = fleet.forget(connection, name, now)
        tokens.revoke_for(connection, "device", device.uuid, now)
        device_certificates.revoke(connection, device.uuid, now)
        tell(connection, "device.deleted", f"device/{name}", uuid=device.uuid)
        return no_content()

    answered = write_once(delete)
    here.wakeups.wake("hub")
    here.wakeups.wake("broker")
    return answered


@operation("Revoke a device", "contributor", scope="devices", result=Device, errors=(PreconditionFailed,))
def revoke_device(name: str) -> Response:
    """The device stays in the list, nothing of it is taken any more. Again changes nothing."""
    here = context()
    now = here.clock.now()

    def revoke(connection: Connection) -> Response:
        before = _expected(connection, name)
        device = fleet.revoke(connection, name, now)
        tokens.revoke_for(connection, "device", device.uuid, now)
        device_certificates.revoke(connection, device.uuid, now)
        if before.revoked_at is None:
            tell(connection, "device.revoked", f"device/{name}", uuid=device.uuid)
        return answer_revised(device, _revision(device))

    answered = write_once(revoke)
    here.wakeups.wake("hub")
    here.wakeups.wake("broker")
    return answered


@operation("Show a device's twin", "reader", scope="devices", result=DeviceTwin)
def show_twin(name: str) -> Response:
    """What the device should run beside what it says of itself."""
    here = context()
    with here.database.read() as connection:
        device = fleet.get(connection, check_known_name(name, "device"), here.clock.now())
        envelope = twins.desired_envelopes(connection, [device.uuid]).get(device.uuid)
        modules = api_module_twins.module_twins_of(connection, device)
    desired = None if envelope is None else read_envelope(envelope)
    return answer_seen(
        DeviceTwin(device=device.name, desired=desired, reported=device.reported, seen_at=device.seen_at, modules=modules)
    )


def _expected(connection: Connection, name: str) -> Device:
    """The device, nobody else changes it meanwhile, as the request's If-Match expects it."""
    device = fleet.get(connection, check_known_name(name, "device"), context().clock.now(), lock=True)
    check_revision("device", name, _revision(device))
    return device


def _revision(device: Device) -> str:
    """Changes with what people say of a device; what it says of itself does not count."""
    return short_digest([device.uuid, device.tags, device.revoked_at])


@operation(
    "List what happened to devices",
    "reader",
    scope="devices",
    result=Page[FleetEvent],
    query=(*PAGE, QueryField("device", "of this device only")),
    errors=(RecordNotFound,),
)
def list_fleet_events() -> Response:
    """Newest first."""
    here = context()
    limit, after = page_arguments()
    if after is not None and not (after.isascii() and after.isdigit() and len(after) <= 10 and int(after) <= _MAX_NUMBER):
        raise InvalidArgument(name="after", value=after[:80], hint="Use the `next` of the page before.")
    with here.database.read() as connection:
        name = arguments.text("device")
        uuid = None if name is None else fleet.get(connection, check_known_name(name, "device"), here.clock.now()).uuid
        found = fleet.events_before(connection, limit + 1, int(after) if after else None, uuid)
    return answer(Page(items=found[:limit], next=str(found[limit - 1].number) if len(found) > limit else None))
