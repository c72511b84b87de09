"""The one thing that a revoked device is still told: that it was revoked. Pure.

Only a hello with the device's own seal is answered, and with nothing but that: its agent then says so on the device, and asks
seldom. Whatever else it sends is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from hedgerow.contracts.document import encode
from hedgerow.contracts.seal import SealRefused, device_key, seal
from hedgerow.contracts.telemetry import Hello, Welcome
from hedgerow.errors import DocumentTooNew, InvalidDocument
from registry.hub.device_seals import open_sealed
from registry.hub.link import Downlink, Uplink
from registry.hub.sessions import LEASE_S
from registry.store.twins import KnownDevice

REASON = "this device was revoked"


def told(uplink: Uplink, device: KnownDevice, master: bytes, incarnation: str) -> Iterator[Downlink]:
    """The answer to a hello of ``device``; nothing to anything else."""
    if uplink.leaf != "hello":
        return
    try:
        opened = open_sealed(uplink, device, master)
    except (SealRefused, InvalidDocument, DocumentTooNew):
        return
    if not isinstance(opened.said, Hello):
        return
    welcome = Welcome(
        device_uuid=device.uuid,
        nonce=opened.said.nonce,
        session=None,
        incarnation=incarnation,
        lease_s=LEASE_S,
        refused=REASON,
        revoked=True,
    )
    key = device_key(master, device.uuid, opened.generation)
    yield Downlink(device.uuid, "welcome", seal(key, device.uuid, "welcome", encode(welcome)))
