"""Secrets: values that the workspace's own processes use and nobody is shown again."""

from __future__ import annotations

from collections.abc import Iterator

from hedgerow.contracts.api import Page, PutSecret, RotatedVault, SecretInfo
from hedgerow.sdk.addresses import address
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/secrets"


class Secrets:
    """``client.secrets``. No method gives back a value."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def set(self, name: str, value: str) -> SecretInfo:
        """Set or replace a secret: 1 to 65536 characters of text. Raises ApiError without the value in it."""
        return self._transport.call("PUT", address(_PATH, name), SecretInfo, body=PutSecret(value=value))

    def get(self, name: str) -> SecretInfo:
        """When and by whom it was set; ``revision`` counts how often."""
        return self._transport.call("GET", address(_PATH, name), SecretInfo)

    def list(self, limit: int = PAGE_ITEMS, after: str | None = None) -> Page[SecretInfo]:
        """By name."""
        return self._transport.call("GET", _PATH, Page[SecretInfo], query={"limit": limit, "after": after})

    def iterate(self) -> Iterator[SecretInfo]:
        """Every secret by name, read page by page; no values.

        >>> _ = client.secrets.set("mail-password", "correct horse")
        >>> [secret.name for secret in client.secrets.iterate()]
        ['mail-password']
        """
        return walk(lambda after: self.list(WALK_ITEMS, after))

    def delete(self, name: str) -> None:
        self._transport.delete(address(_PATH, name))

    def rotate_key(self) -> RotatedVault:
        """Make a new vault key and seal every value anew (owners only)."""
        return self._transport.call("POST", address(_PATH, "rotate-key"), RotatedVault)
