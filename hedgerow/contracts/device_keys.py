"""How a device gets the next generation of its key: over REST, so that neither listeners nor a stolen pull token get it.

    device ── {KeyRequest: a fresh X25519 key} sealed with the key it has ──▶ POST /devices/NAME/key
           ◀── {KeyAnswer: KeyGrant, encrypted for that X25519 key} sealed with the same key ──
           ── {KeyTaken} sealed with the new key ──▶ POST /devices/NAME/key/taken

Both ways carry the device's token as bearer. Who only listens has neither X25519 secret, who only has the token cannot seal.
An answer that was lost is asked for again: the grant of a generation is always the same.
"""

from __future__ import annotations

import base64

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hedgerow.contracts.document import Document, decode, encode
from hedgerow.contracts.seal import SealRefused

# Purposes of the seals (``contracts/seal.py``); none is a topic's leaf.
REQUEST, ANSWER, TAKEN = "key-request", "key-answer", "key-taken"
# A key encrypts one message only, so the nonce may be constant.
_NONCE = bytes(12)
_KEY_BYTES = 32
MAX_SEALED_CHARS = 16 * 1024


class FetchKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /devices/NAME/key`` and ``POST /devices/NAME/key/taken``: base64 of a sealed KeyRequest or KeyTaken."""

    sealed: str


class FetchedKey(Document, frozen=True, kw_only=True):
    """Answer of ``POST /devices/NAME/key``: base64 of a sealed KeyAnswer."""

    sealed: str


class KeyRequest(Document, frozen=True, kw_only=True):
    """The device has ``generation`` and wants what follows it; ``public_key`` is a fresh X25519 key (base64 of 32 bytes)."""

    device_uuid: str
    generation: int
    public_key: str


class KeyAnswer(Document, frozen=True, kw_only=True):
    """``box`` is base64 of a KeyGrant, encrypted; ``public_key`` the control plane's half of the exchange."""

    device_uuid: str
    public_key: str
    box: str


class KeyGrant(Document, frozen=True, kw_only=True):
    """The key of ``generation`` (base64 of 32 bytes) and the token that goes with it."""

    generation: int
    device_key: str
    pull_token: str


class KeyTaken(Document, frozen=True, kw_only=True):
    """The device has stored the key of ``generation``, with which this is sealed."""

    device_uuid: str
    generation: int


def new_secret() -> X25519PrivateKey:
    """For one exchange."""
    return X25519PrivateKey.generate()


def public_text(secret: X25519PrivateKey) -> str:
    """The public half, as it travels."""
    return base64.b64encode(secret.public_key().public_bytes_raw()).decode()


def grant_for(request: KeyRequest, grant: KeyGrant) -> KeyAnswer:
    """``grant``, readable by whoever made ``request``. Raises ValueError for a public key that is none."""
    secret = new_secret()
    mine = public_text(secret)
    box = _cipher(secret, request.public_key, request.device_uuid).encrypt(
        _NONCE, encode(grant), _bound(request.public_key, mine)
    )
    return KeyAnswer(device_uuid=request.device_uuid, public_key=mine, box=base64.b64encode(box).decode())


def open_grant(answer: KeyAnswer, secret: X25519PrivateKey) -> KeyGrant:
    """What :func:`grant_for` made for ``secret``. Raises SealRefused, InvalidDocument, DocumentTooNew."""
    try:
        cipher = _cipher(secret, answer.public_key, answer.device_uuid)
        box = base64.b64decode(answer.box, validate=True)
        plain = cipher.decrypt(_NONCE, box, _bound(public_text(secret), answer.public_key))
    except (ValueError, InvalidTag):
        raise SealRefused(purpose=ANSWER, device_uuid=answer.device_uuid) from None
    return decode(plain, KeyGrant)


def key_of(grant: KeyGrant) -> bytes:
    """Its 32 bytes. Raises ValueError."""
    raw = base64.b64decode(grant.device_key, validate=True)
    if len(raw) != _KEY_BYTES:
        raise ValueError(f"a key of {len(raw)} bytes")
    return raw


def _cipher(mine: X25519PrivateKey, theirs: str, device_uuid: str) -> ChaCha20Poly1305:
    shared = mine.exchange(X25519PublicKey.from_public_bytes(base64.b64decode(theirs, validate=True)))
    derived = HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"hedgerow-device-key-grant-v1|" + device_uuid.encode())
    return ChaCha20Poly1305(derived.derive(shared))


def _bound(device_half: str, our_half: str) -> bytes:
    return f"{device_half}|{our_half}".encode()
