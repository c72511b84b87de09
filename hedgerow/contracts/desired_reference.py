"""DesiredReference: what is published in the place of a desired state that is too large for a message.

It is a hint, and nothing of it is believed: the device fetches the signed envelope with its own token, and checks that as it
would have checked one that came over MQTT.
"""

from __future__ import annotations

from hedgerow.contracts.document import Document, decode, digest_of
from hedgerow.contracts.names import MAX_MQTT_PAYLOAD_BYTES, Digest
from hedgerow.errors import HedgerowError

# Of a signed envelope, however it travels; base64 makes four bytes of three.
MAX_ENVELOPE_BYTES = 16 * 1024 * 1024
MAX_REFERENCE_BYTES = 1024


class DesiredReference(Document, frozen=True, kw_only=True):
    """``digest`` and ``size_bytes`` are those of the envelope at ``GET /devices/NAME/desired``, which has ``version``."""

    device_uuid: str
    version: int
    digest: Digest
    size_bytes: int


def needs_reference(envelope: bytes) -> bool:
    """Whether a broker might not let it pass."""
    return len(envelope) > MAX_MQTT_PAYLOAD_BYTES


def reference_to(envelope: bytes, device_uuid: str, version: int) -> DesiredReference:
    """What to publish instead."""
    return DesiredReference(device_uuid=device_uuid, version=version, digest=digest_of(envelope), size_bytes=len(envelope))


def read_reference(data: bytes) -> DesiredReference | None:
    """None for everything else, an envelope first of all."""
    if len(data) > MAX_REFERENCE_BYTES:
        return None
    try:
        return decode(data, DesiredReference)
    except HedgerowError:
        return None
