"""``/api/v1/devices/NAME/agent-wheel``: the release of the agent that a device should run, for that device and nobody else.

A device's token opens no blobs. Here it gets one: the wheel that the desired state which was signed for it names.
"""

from __future__ import annotations

from flask import Blueprint, Response

from registry.blobs.errors import BlobDamaged, BlobUnknown
from registry.errors import RecordNotFound
from registry.hub.desired import read_envelope
from registry.identity.errors import NotThisDevice
from registry.server import arguments
from registry.server.api_desired_state import own_desired_state
from registry.server.content import send_blob
from registry.server.errors import RangeRefused, TooManyTransfers
from registry.server.http import context
from registry.server.operation import QueryField, operation

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
    errors=(RecordNotFound, NotThisDevice, BlobUnknown, BlobDamaged, RangeRefused, TooManyTransfers),
)
def fetch_agent_wheel(name: str) -> Response:
    """For devices only, with their own token: the wheel that the device's desired state names, and no other."""
    envelope = own_desired_state(name)
    release = None if envelope is None else read_envelope(envelope).agent
    asked = arguments.text("digest") or ""
    if release is None or release.wheel is None or release.wheel != asked:
        raise BlobUnknown(digest=asked[:80])
    return send_blob(context().blobs, release.wheel)
