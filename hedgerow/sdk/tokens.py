"""Tokens: who may do what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hedgerow.contracts.api import CreateToken, Page, Role, TokenInfo
from hedgerow.sdk.addresses import address
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/tokens"


class Tokens:
    """``client.tokens`` (owners only, but for :meth:`whoami`)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, role: Role, expires_in_s: int | None = None, scopes: Sequence[str] = ()) -> TokenInfo:
        """The answer's ``secret`` is shown this once.

        ``scopes`` (``models:iris``, ``models:team-a.*``, ``endpoints:*``) narrow what a contributor, reader or puller
        reaches; none means everything that the role may.
        """
        body = CreateToken(name=name, role=role, scopes=list(scopes), expires_in_s=expires_in_s)
        return self._transport.call("POST", _PATH, TokenInfo, body=body)

    def whoami(self) -> TokenInfo:
        """The token that this client uses, without its secret; for every role."""
        return self._transport.call("GET", address(_PATH, "me"), TokenInfo)

    def get(self, token_id: str) -> TokenInfo:
        return self._transport.call("GET", address(_PATH, token_id), TokenInfo)

    def list(self, limit: int = PAGE_ITEMS, after: str | None = None) -> Page[TokenInfo]:
        """Newest first; ``after`` is the ``next`` of the page before."""
        return self._transport.call("GET", _PATH, Page[TokenInfo], query={"limit": limit, "after": after})

    def iterate(self) -> Iterator[TokenInfo]:
        """Every token, newest first, read page by page."""
        return walk(lambda after: self.list(WALK_ITEMS, after))

    def revoke(self, token_id: str) -> None:
        """Refused from now on; a second time changes nothing."""
        self._transport.delete(address(_PATH, token_id))
