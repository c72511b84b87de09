"""The keys with which a workspace signs: a list beside them says which there are, what each may sign, and where it is.

    keys/signing.key           the first key, as the workspace was made with
    keys/signing-HEX.key       later ones (HEX: the beginning of its key id)
    keys/signing-keys.json     the list; absent: signing.key alone, for everything

A key whose private half is kept elsewhere stays in the list without a file. Files are written before the list names them and
removed after it does not: wherever this is cut off, the list is true.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.device import TRUSTED_KEYS_MAX, KeyUse, TrustedKey
from hedgerow.contracts.document import decode, digest_of, encode
from hedgerow.contracts.signed import Signer, Verifier
from hedgerow.contracts.signing import kept_words
from hedgerow.errors import Bug
from registry.identity.errors import LastSigningKey, SigningKeyUnknown, TooManySigningKeys

LIST, FIRST = "signing-keys.json", "signing.key"
_KEY_BYTES = 32
_changing = threading.Lock()


class ListedKey(msgspec.Struct, frozen=True, kw_only=True):
    """``file`` is the private half's name in the folder, None when it is kept elsewhere."""

    public: TrustedKey
    file: str | None = None


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """``signing-keys.json``; ``number`` counts its changes, ``retired`` are ids of keys that were here once."""

    keys: list[ListedKey]
    number: int = 0
    retired: list[str] = []


@dataclass(frozen=True)
class SigningKeys:
    """The folder as it was when it was read."""

    folder: Path
    listed: KeyList

    @property
    def identity(self) -> TrustedKey:
        """By which a backup knows its workspace."""
        return self.listed.keys[0].public

    def was_ever(self, keyid: str) -> bool:
        """Whether this is, or was, a key of the workspace."""
        return keyid in self.listed.retired or any(key.keyid == keyid for key in self.trusted)

    @property
    def trusted(self) -> list[TrustedKey]:
        """What devices should trust."""
        return [one.public for one in self.listed.keys]

    @property
    def told(self) -> list[TrustedKey]:
        """What desired states say of it: nothing as long as there was never another key than the first."""
        return self.trusted if self.listed.number else []

    def signers(self, use: KeyUse) -> Mapping[str, Signer]:
        """Those that are here and may sign this; empty: it has to be signed elsewhere."""
        wanted = [one for one in self.listed.keys if one.file is not None and one.public.may_sign(use)]
        return {one.public.keyid: _private(self.folder / (one.file or "")).sign for one in wanted}

    def verifiers(self, use: KeyUse) -> Mapping[str, Verifier]:
        """Of every key that may sign this, wherever it is kept."""
        return {key.keyid: _verifier(key) for key in self.trusted if key.may_sign(use)}

    def find(self, keyid: str) -> ListedKey:
        """The key whose id is, or begins with, ``keyid`` (with or without ``sha256:``). Raises SigningKeyUnknown."""
        wanted = keyid.removeprefix("sha256:")
        found = [one for one in self.listed.keys if wanted and one.public.keyid.removeprefix("sha256:").startswith(wanted)]
        if len(found) != 1:
            raise SigningKeyUnknown(keyid=keyid[:80])
        return found[0]

    def private_of(self, key: ListedKey) -> bytes:
        """Its 32 bytes. Raises SigningKeyUnknown when they are kept elsewhere."""
        if key.file is None:
            raise SigningKeyUnknown(keyid=f"{key.public.keyid} (its private half is not here)")
        return _private(self.folder / key.file).private_bytes_raw()


def read_signing_keys(folder: Path) -> SigningKeys:
    """``folder`` is the workspace's ``keys``. Raises OSError, Bug for what is none of ours."""
    path = folder / LIST
    if path.exists():
        return SigningKeys(folder, decode(path.read_bytes(), KeyList))
    public = public_of(_private(folder / FIRST))
    return SigningKeys(folder, KeyList(keys=[ListedKey(public=public, file=FIRST)]))


def add_key(folder: Path, uses: Sequence[KeyUse] = ()) -> ListedKey:
    """Another key, made here; ``uses`` as in TrustedKey. Raises TooManySigningKeys."""
    with _changing:
        before = read_signing_keys(folder)
        made = _make_another(before, uses)
        _write(before, [*before.listed.keys, made])
        return made


def retire_key(folder: Path, keyid: str) -> ListedKey:
    """Take a key off the list, and its private half away. Raises SigningKeyUnknown, LastSigningKey."""
    with _changing:
        before = read_signing_keys(folder)
        gone = before.find(keyid)
        left = [one for one in before.listed.keys if one is not gone]
        if not any(one.public.may_sign("desired") for one in left):
            raise LastSigningKey(keyid=gone.public.keyid)
        _write(before, left, retired=[*before.listed.retired, gone.public.keyid])
        _remove(folder, gone)
        return gone


def take_offline(folder: Path, keyid: str, proof: bytes) -> ListedKey:
    """Forget the private half of a key, which somebody keeps elsewhere: ``proof`` is its signature of :func:`kept_words`.

    When no key here may sign method calls then, another one is made that may sign those only. Raises SigningKeyUnknown,
    TooManySigningKeys.
    """
    with _changing:
        before = read_signing_keys(folder)
        found = before.find(keyid)
        if found.file is None or not _verifier(found.public)(proof, kept_words(found.public.keyid)):
            raise SigningKeyUnknown(keyid=f"{found.public.keyid} (there is no proof that its private half is kept)")
        keys = [msgspec.structs.replace(one, file=None) if one is found else one for one in before.listed.keys]
        if not any(one.file is not None and one.public.may_sign("methods") for one in keys):
            keys.append(_make_another(before, ["methods"]))
        _write(before, keys)
        _remove(folder, found)
        return found


def public_of(private: Ed25519PrivateKey, uses: Sequence[KeyUse] = ()) -> TrustedKey:
    """Its public half as devices get it; the key id is its digest."""
    raw = private.public_key().public_bytes_raw()
    return TrustedKey(keyid=digest_of(raw), key=base64.b64encode(raw).decode(), uses=list(uses))


def _make_another(before: SigningKeys, uses: Sequence[KeyUse]) -> ListedKey:
    # One more than devices take, and none of them could be told anything again, not even that one of the keys goes.
    if len(before.listed.keys) >= TRUSTED_KEYS_MAX:
        raise TooManySigningKeys(limit=TRUSTED_KEYS_MAX)
    return _make(before.folder, uses)


def _make(folder: Path, uses: Sequence[KeyUse]) -> ListedKey:
    private = Ed25519PrivateKey.generate()
    public = public_of(private, uses)
    name = f"signing-{public.keyid.removeprefix('sha256:')[:12]}.key"
    atomic_write(folder / name, base64.b64encode(private.private_bytes_raw()) + b"\n", mode=0o600)
    return ListedKey(public=public, file=name)


def _write(before: SigningKeys, keys: Sequence[ListedKey], retired: list[str] | None = None) -> None:
    number = before.listed.number + 1
    after = KeyList(keys=list(keys), number=number, retired=before.listed.retired if retired is None else retired)
    atomic_write(before.folder / LIST, encode(after), mode=0o600)


def _remove(folder: Path, key: ListedKey) -> None:
    if key.file is not None:
        (folder / key.file).unlink(missing_ok=True)


def _private(path: Path) -> Ed25519PrivateKey:
    raw = base64.b64decode(path.read_bytes().strip(), validate=True)
    if len(raw) != _KEY_BYTES:
        raise Bug(what=f"{path.name} holds {len(raw)} bytes instead of {_KEY_BYTES}")
    return Ed25519PrivateKey.from_private_bytes(raw)


def _verifier(key: TrustedKey) -> Verifier:
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.key, validate=True))

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            public.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return verify
