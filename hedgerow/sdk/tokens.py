"""Tokens: who may do what."""

from __future__ import annotations

from hedgerow.contracts.api import CreateToken, Page, Role, TokenInfo
from hedgerow.sdk.addresses import address
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/tokens"


class Tokens:
    """``client.tokens`` (owners only)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, role: Role, expires_in_s: int | None = None) -> TokenInfo:
        """The answer's ``secret`` is shown this once."""
        body = CreateToken(name=name, role=role, expires_in_s=expires_in_s)
        return self._transport.call("POST", _PATH, TokenInfo, body=body)

    def list(self) -> Page[TokenInfo]:
        return self._transport.call("GET", _PATH, Page[TokenInfo])

    def revoke(self, token_id: str) -> None:
        self._transport.delete(address(_PATH, token_id))
