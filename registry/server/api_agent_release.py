"""``/api/v1/devices/NAME/agent-wheel``: the release of the agent that a device should run, for that device and nobody else.

A device's token opens no blobs. Here it gets one: the wheel that the desired state which was signed for it names.
"""

from __future__ import annotations

from flask import Blueprint, Response

from hedgerow.contracts.names import check_known_name
from registry.blobs.errors import BlobDamaged, BlobUnknown
from registry.errors import RecordNotFound
from registry.hub.desired import read_envelope
from registry.key_errors import NotThatDevice
from registry.server import arguments
from registry.server.content import send_blob
from registry.server.errors import RangeRefused, TooManyTransfers
from registry.server.http import caller, context
from registry.server.operation import QueryField, operation
from registry.store import fleet, twins

_DIGEST = QueryField("digest", "the wheel's digest, as the desired state has it")


def add_routes(blueprint: Blueprint) -> None:
    """Called by ``api_fleet``."""
    blueprint.get("/devices/<name>/agent-wheel")(fetch_agent_wheel)


@operation(
    "Fetch the wheel of this device's agent",
    "device",
    scope="devices",
    result="application/octet-stream",
    query=(_DIGEST,),
    errors=(RecordNotFound, NotThatDevice, BlobUnknown, BlobDamaged, RangeRefused, TooManyTransfers),
)
def fetch_agent_wheel(name: str) -> Response:
    """For devices only, with their own token: the wheel that the device's desired state names, and no other."""
    here = context()
    with here.database.read() as connection:
        device = fleet.get(connection, check_known_name(name, "device"), here.clock.now())
        if caller().subject != device.uuid:
            raise NotThatDevice(device=name)
        envelope = twins.desired_envelopes(connection, [device.uuid]).get(device.uuid)
    release = None if envelope is None else read_envelope(envelope).agent
    asked = arguments.text("digest") or ""
    if release is None or release.wheel is None or release.wheel != asked:
        raise BlobUnknown(digest=asked[:80])
    return send_blob(here.blobs, release.wheel)
