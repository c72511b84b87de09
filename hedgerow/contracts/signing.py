"""The keys that sign for devices, and desired states that wait for a signature by one that is kept elsewhere."""

from __future__ import annotations

import base64
from typing import Annotated

import msgspec

from hedgerow.contracts.device import KeyUse
from hedgerow.contracts.document import Document
from hedgerow.contracts.names import KnownName


class SigningKey(Document, frozen=True, kw_only=True):
    """``keyid`` and ``key`` as devices get them; ``uses`` empty: everything. ``here``: the control plane can sign with it.

    ``unconfirmed_count`` devices have not said that they believe it, ``unconfirmed`` are the first of them.
    """

    keyid: str
    key: str
    uses: list[KeyUse] = []
    here: bool = True
    unconfirmed: list[KnownName] = []
    unconfirmed_count: int = 0


class SigningKeyList(Document, frozen=True, kw_only=True):
    """Answer of ``GET /signing-keys``."""

    keys: list[SigningKey]


class AddSigningKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /signing-keys``; ``uses`` empty: everything."""

    uses: list[KeyUse] = []


class PrivateSigningKey(Document, frozen=True, kw_only=True):
    """Answer of ``POST /signing-keys/KEYID/private``: base64 of the 32 bytes."""

    keyid: str
    private: str


class KeepSigningKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /signing-keys/KEYID/take-offline``: base64 of the key's signature of :func:`kept_words`."""

    proof: Annotated[str, msgspec.Meta(max_length=1000)]


class UnsignedState(msgspec.Struct, frozen=True, kw_only=True):
    """``payload`` is base64 of the desired state's bytes; ``previous`` of the envelope that the device has (None: none)."""

    device: KnownName
    device_uuid: str
    version: int
    payload: str
    previous: str | None = None


class UnsignedStates(Document, frozen=True, kw_only=True):
    """The file that ``hedgerow edge sign --export`` writes."""

    workspace_id: str
    states: list[UnsignedState]


class SignedState(msgspec.Struct, frozen=True, kw_only=True):
    """``envelope`` is base64 of the DSSE envelope."""

    device: KnownName
    device_uuid: str
    envelope: str


class SignedStates(Document, frozen=True, kw_only=True):
    """The file that ``hedgerow edge sign FILE`` writes, and body of ``POST /unsigned-desired-states/signatures``."""

    workspace_id: str
    states: Annotated[list[SignedState], msgspec.Meta(max_length=10_000)]


class RefusedSignature(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing came of a signature; its device keeps what it has."""

    device: KnownName
    problem: str


class TakenSignatures(Document, frozen=True, kw_only=True):
    """Answer of ``POST /unsigned-desired-states/signatures``: devices that get what was signed for them."""

    taken: list[KnownName]
    refused: list[RefusedSignature] = []


def kept_words(keyid: str) -> bytes:
    """What the holder of a key signs to prove it."""
    return b"hedgerow-key-kept-v1|" + keyid.encode()


def raw_key(text: str) -> bytes:
    """The 32 bytes of a key file's text. Raises ValueError."""
    raw = base64.b64decode(text.strip(), validate=True)
    if len(raw) != 32:
        raise ValueError(f"it holds {len(raw)} bytes instead of 32")
    return raw
