"""DeviceConfig: the ``device.toml`` made at enrolment. It holds the device's key: mode 0600, never logged."""

from __future__ import annotations

import base64
import json
import tomllib
from typing import Annotated, Literal

import msgspec

from hedgerow.contracts.document import Document, convert
from hedgerow.contracts.names import KnownName
from hedgerow.errors import InvalidDocument

KeyUse = Literal["desired", "methods"]
# A device refuses a desired state that names more.
TRUSTED_KEYS_MAX = 16


class TrustedKey(msgspec.Struct, frozen=True, kw_only=True):
    """An Ed25519 public key of the workspace; both fields as in DSSE (``key`` is base64 of the raw 32 bytes).

    ``uses`` is what it may sign; empty: everything.
    """

    keyid: str
    key: str
    uses: list[KeyUse] = []

    def may_sign(self, use: KeyUse) -> bool:
        """Whether documents of this kind count with its signature."""
        return not self.uses or use in self.uses


class DeviceConfig(Document, frozen=True, kw_only=True):
    """Everything an agent needs to find and trust its workspace.

    ``broker_login`` "device": log in at the broker as ``contracts/broker_login.py`` says; "url": as ``broker_url`` says.
    ``broker_login`` "certificate": with an X.509 certificate that the agent asks the workspace for and renews.
    ``key_generation`` is that of ``device_key``; a later one is fetched and kept in the agent's state folder.
    ``broker_ca`` is the certificate (PEM) that the broker's must descend from; empty: the system's authorities.
    """

    device_uuid: str
    name: KnownName
    workspace_id: str
    topic_prefix: str
    broker_url: str
    registry_url: str
    device_key: str
    pull_token: str
    trusted_keys: Annotated[list[TrustedKey], msgspec.Meta(min_length=1)]
    tags: dict[str, str] = {}
    broker_login: Literal["url", "device", "certificate"] = "url"
    broker_ca: str = ""
    key_generation: int = 1

    def key_bytes(self) -> bytes:
        """The 32-byte device key."""
        return base64.b64decode(self.device_key, validate=True)


def to_toml(config: DeviceConfig) -> str:
    """The text of ``device.toml``."""
    plain = msgspec.to_builtins(config)
    tags, keys = plain.pop("tags"), plain.pop("trusted_keys")
    lines = ["# Made by `hedgerow device enroll`. Holds this device's key: keep it secret."]
    lines += [f"{name} = {_quoted(value)}" for name, value in plain.items()]
    lines += ["", "[tags]", *(f"{_quoted(name)} = {_quoted(value)}" for name, value in tags.items())]
    for key in keys:
        lines += ["", "[[trusted_keys]]", *(f"{name} = {_quoted(value)}" for name, value in key.items())]
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    """JSON's escapes are a subset of TOML's, but for surrogate pairs (so: no ASCII-only) and DEL (which TOML forbids bare)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def from_toml(text: str) -> DeviceConfig:
    """Read ``device.toml``; raises InvalidDocument, DocumentTooNew."""
    try:
        return convert(tomllib.loads(text), DeviceConfig)
    except tomllib.TOMLDecodeError as problem:
        raise InvalidDocument(document="device.toml", problem=str(problem)) from None
