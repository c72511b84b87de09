"""The keys that sign for devices, and what waits for the signature of one that is kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hedgerow.contracts.api import Page
from hedgerow.contracts.device import KeyUse
from hedgerow.contracts.signing import (
    AddSigningKey,
    KeepSigningKey,
    PrivateSigningKey,
    SignedStates,
    SigningKey,
    SigningKeyList,
    TakenSignatures,
    UnsignedState,
)
from hedgerow.sdk.addresses import address
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH, _WAITING = "/api/v1/signing-keys", "/api/v1/unsigned-desired-states"


class SigningKeys:
    """``client.signing_keys``; all but :meth:`list` and what is unsigned is for owners."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Sequence[SigningKey]:
        """Every key, and which devices have not said yet that they believe it.

        >>> [key.here for key in client.signing_keys.list()]
        [True]
        """
        return self._transport.call("GET", _PATH, SigningKeyList).keys

    def add(self, uses: Sequence[KeyUse] = ()) -> SigningKey:
        """Another key, made in the workspace. It signs beside the others from now on; devices are told to believe it."""
        return self._transport.call("POST", _PATH, SigningKey, body=AddSigningKey(uses=list(uses)))

    def retire(self, keyid: str, *, force: bool = False) -> Sequence[SigningKey]:
        """Forget a key. ``force``: also while devices believe no other; those need a new device.toml. Returns what is left."""
        query = {"force": True} if force else None
        return self._transport.call("POST", address(_PATH, keyid, "retire"), SigningKeyList, query=query).keys

    def private(self, keyid: str) -> PrivateSigningKey:
        """The private half, to be kept elsewhere; :meth:`take_offline` is the second step."""
        return self._transport.call("POST", address(_PATH, keyid, "private"), PrivateSigningKey)

    def take_offline(self, keyid: str, proof: str) -> Sequence[SigningKey]:
        """The workspace forgets the private half; ``proof`` (``contracts/signing.py``) shows that somebody has it."""
        body = KeepSigningKey(proof=proof)
        return self._transport.call("POST", address(_PATH, keyid, "take-offline"), SigningKeyList, body=body).keys

    def unsigned(self, limit: int = PAGE_ITEMS, after: str | None = None) -> Page[UnsignedState]:
        """Desired states that wait for a signature, by device."""
        return self._transport.call("GET", _WAITING, Page[UnsignedState], query={"limit": limit, "after": after})

    def iterate_unsigned(self) -> Iterator[UnsignedState]:
        """All that wait, read page by page."""
        return walk(lambda after: self.unsigned(WALK_ITEMS, after))

    def bring(self, signed: SignedStates) -> TakenSignatures:
        """Hand in signatures; what was taken reaches its device like any desired state."""
        return self._transport.call("POST", address(_WAITING, "signatures"), TakenSignatures, body=signed)
