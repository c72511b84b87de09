"""A device's half of the change of its key, by the contracts (``hedgerow/contracts/device_keys.py``)."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.device_keys import (
    ANSWER,
    REQUEST,
    TAKEN,
    KeyAnswer,
    KeyGrant,
    KeyRequest,
    KeyTaken,
    key_of,
    new_secret,
    open_grant,
    public_text,
)
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.seal import seal, unseal


class Fetching:
    """One exchange; ``key`` is the key that the device has."""

    def __init__(self, config: DeviceConfig, key: bytes | None = None, secret: X25519PrivateKey | None = None) -> None:
        self.uuid, self.key = config.device_uuid, key or config.key_bytes()
        self.secret = secret or new_secret()

    def request(self, **changes: Any) -> dict[str, str]:
        """The body of ``POST …/key``."""
        fields: dict[str, Any] = {"device_uuid": self.uuid, "generation": 1, "public_key": public_text(self.secret)} | changes
        return _body(seal(self.key, self.uuid, REQUEST, encode(KeyRequest(**fields))))

    def grant(self, answer: dict[str, Any]) -> KeyGrant:
        """Out of the answer's body."""
        return open_grant(self.answer(answer), self.secret)

    def answer(self, answer: dict[str, Any]) -> KeyAnswer:
        """Unsealed, still encrypted."""
        return decode(unseal(self.key, self.uuid, ANSWER, base64.b64decode(answer["sealed"])), KeyAnswer)

    def taken(self, grant: KeyGrant) -> dict[str, str]:
        """The body of ``POST …/key/taken``."""
        said = KeyTaken(device_uuid=self.uuid, generation=grant.generation)
        return _body(seal(key_of(grant), self.uuid, TAKEN, encode(said)))


def _body(sealed: bytes) -> dict[str, str]:
    return {"sealed": base64.b64encode(sealed).decode()}
