"""``/api/v1/devices/NAME/desired``: a device's desired state as it was signed, for the device itself.

Devices get it over MQTT; what is too large for a message they fetch here (``contracts/desired_reference.py``).
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.names import check_known_name
from registry.errors import RecordNotFound
from registry.identity.errors import NotThisDevice
from registry.server.http import caller, context
from registry.server.operation import operation
from registry.store import fleet, twins


def add_routes(blueprint: Blueprint) -> None:
    """Put this module's route below ``blueprint``'s prefix."""
    blueprint.get("/devices/<name>/desired")(fetch_desired)


@operation(
    "Fetch this device's desired state",
    "device",
    scope="devices",
    result="application/octet-stream",
    errors=(RecordNotFound, NotThisDevice),
)
def fetch_desired(name: str) -> Response:
    """For devices only, with their own token: the signed envelope, byte for byte, with its digest as ETag."""
    envelope = own_desired_state(name)
    if envelope is None:
        raise RecordNotFound(kind="desired state of device", name=name, command="device")
    response = Response(envelope, mimetype="application/octet-stream")
    response.set_etag(digest_of(envelope).partition(":")[2])
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response


def own_desired_state(name: str) -> bytes | None:
    """The envelope of the device whose token this is, None before its first. Raises NotThisDevice, RecordNotFound."""
    here = context()
    with here.database.read() as connection:
        device = fleet.get(connection, check_known_name(name, "device"), here.clock.now())
        if caller().subject != device.uuid:
            raise NotThisDevice(name=name)
        return twins.desired_envelopes(connection, [device.uuid]).get(device.uuid)
