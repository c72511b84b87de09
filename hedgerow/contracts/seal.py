"""Sealed messages: a MAC under the device key over everything between a device and its hub.

Wire form: ``hedgerow-seal-v1 HEX\\n`` + payload. Each purpose (topic leaf) has a key of its own, derived by HKDF-like
HMAC from the device key and bound to the device's UUID, so a telemetry batch can never pass as an acknowledgement.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from hedgerow.errors import AccessError

_MARK = b"hedgerow-seal-v1 "
_HEX_LENGTH = 64
DEVICE_KEY_BYTES = 32


class SealRefused(AccessError):
    """A sealed message has no valid MAC for this device and purpose."""

    key = "seal_refused"
    message = "A {purpose} message of device {device_uuid} was refused: its seal is missing or wrong"
    remedy = "If this device was enrolled again, give it the new device.toml; otherwise somebody else is writing to its topics."


def device_key(master: bytes, device_uuid: str, generation: int) -> bytes:
    """The 32-byte key of one device; ``generation`` grows with each rotation. The hub stores only ``master``."""
    return hmac.digest(master, f"hedgerow-device-key-v1|{device_uuid}|{generation}".encode(), sha256)


def _mac(key: bytes, device_uuid: str, purpose: str, payload: bytes) -> bytes:
    purpose_key = hmac.digest(key, f"hedgerow-seal-v1|{device_uuid}|{purpose}".encode(), sha256)
    return hmac.new(purpose_key, payload, sha256).hexdigest().encode()


def seal(key: bytes, device_uuid: str, purpose: str, payload: bytes) -> bytes:
    """``payload`` with its MAC in front."""
    return _MARK + _mac(key, device_uuid, purpose, payload) + b"\n" + payload


def unseal(key: bytes, device_uuid: str, purpose: str, message: bytes) -> bytes:
    """The payload of a sealed message, or SealRefused. Constant-time compare."""
    head = len(_MARK) + _HEX_LENGTH + 1
    payload = message[head:]
    expected = _MARK + _mac(key, device_uuid, purpose, payload) + b"\n"
    if not hmac.compare_digest(message[:head], expected):
        raise SealRefused(purpose=purpose, device_uuid=device_uuid)
    return payload
