"""DeviceConfig: the ``device.toml`` made at enrolment. It holds the device's key: mode 0600, never logged."""

from __future__ import annotations

import base64
from typing import Annotated

import msgspec

from hedgerow.contracts.document import Document
from hedgerow.contracts.names import Name


class TrustedKey(msgspec.Struct, frozen=True, kw_only=True):
    """An Ed25519 public key of the workspace; both fields as in DSSE (``key`` is base64 of the raw 32 bytes)."""

    keyid: str
    key: str


class DeviceConfig(Document, frozen=True, kw_only=True):
    """Everything an agent needs to find and trust its workspace."""

    device_uuid: str
    name: Name
    workspace_id: str
    topic_prefix: str
    broker_url: str
    registry_url: str
    device_key: str
    pull_token: str
    trusted_keys: Annotated[list[TrustedKey], msgspec.Meta(min_length=1)]
    tags: dict[str, str] = {}

    def key_bytes(self) -> bytes:
        """The 32-byte device key."""
        return base64.b64decode(self.device_key, validate=True)
