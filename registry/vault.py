"""Seals small values (secrets, webhook keys) for the database: AES-256-GCM under keys that lie outside of it.

The ring ``keys/vault.keys`` (0600) holds one or more keys; the newest seals, any of them opens. It is made when something
is sealed for the first time. Who seals inside a transaction, and how keys are changed: ``registry/store/secrets.py``.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.document import Document, decode, encode
from hedgerow.errors import DocumentTooNew, InvalidDocument
from registry.errors import VaultKeyMissing, VaultRingUnreadable, VaultValueDamaged
from registry.workspace import VAULT_KEYS, link_once

_KEY_BYTES, _NONCE_BYTES, _ID_HEX = 32, 12, 16


class VaultKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the ring; ``id`` is made from it."""

    id: str
    key: bytes

    def __repr__(self) -> str:
        # Whatever shows a value of ours by mistake (a log, a traceback) shows no key.
        return f"VaultKey(id={self.id!r})"


class KeyRing(Document, frozen=True, kw_only=True):
    """``keys/vault.keys``: oldest first."""

    keys: list[VaultKey]


@dataclass(frozen=True)
class Sealed:
    """A sealed value as the database keeps it: the id of its key, and nonce with ciphertext."""

    key_id: str
    data: bytes


@dataclass(frozen=True)
class Vault:
    """The vault whose key ring lies in ``folder`` (a workspace's ``keys``). Making the object reads and writes nothing.

    The ring is read anew each time, so that a change of keys by one process is known to the others at once.
    """

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / VAULT_KEYS

    def seal(self, name: str, value: bytes) -> Sealed:
        """Seal ``value`` under the newest key, bound to ``name`` (``secret/NAME``, ``webhook/NAME``).

        For a record that outlives this call use ``registry.store.secrets.seal``, which knows of key changes.
        Raises VaultRingUnreadable, OSError.
        """
        return _seal(self.ring(make=True).keys[-1], name, value)

    def open(self, name: str, sealed: Sealed, *, ring: KeyRing | None = None) -> bytes:
        """The value. ``ring`` was read (:meth:`ring`) before the record was, whose key may have left the ring since.

        Raises VaultKeyMissing, VaultValueDamaged (also for a value sealed under another name), VaultRingUnreadable.
        """
        known = {key.id: key.key for one in (ring, self.ring()) if one for key in one.keys}
        if sealed.key_id not in known:
            raise VaultKeyMissing(name=name, key=sealed.key_id, path=self.path)
        try:
            nonce, text = sealed.data[:_NONCE_BYTES], sealed.data[_NONCE_BYTES:]
            return AESGCM(known[sealed.key_id]).decrypt(nonce, text, _bound_to(sealed.key_id, name))
        except (InvalidTag, ValueError):
            raise VaultValueDamaged(name=name) from None

    def fingerprint(self, value: bytes) -> str:
        """By which two values may be compared in the database; without the newest key nobody can try values against it.

        Raises VaultRingUnreadable, OSError.
        """
        key = self.ring(make=True).keys[-1].key
        return hmac.digest(key, b"hedgerow vault fingerprint\0" + value, "sha256").hex()

    def key_ids(self) -> list[str]:
        """Oldest first; empty while there is no ring. Raises VaultRingUnreadable."""
        return [key.id for key in self.ring().keys]

    def add_key(self) -> str:
        """Put a new key on the ring, which seals from now on; its id. One caller at a time (see ``store/secrets.py``)."""
        made = _new_key()
        self._write([*self.ring().keys, made])
        return made.id

    def keep_keys(self, used: Iterable[str]) -> None:
        """Drop every key that is neither among ``used`` nor the newest. One caller at a time."""
        keys, wanted = self.ring().keys, set(used)
        kept = [key for key in keys[:-1] if key.id in wanted] + keys[-1:]
        if len(kept) < len(keys):
            self._write(kept)

    def _write(self, keys: list[VaultKey]) -> None:
        atomic_write(self.path, encode(KeyRing(keys=keys)) + b"\n", mode=0o600)

    def ring(self, *, make: bool = False) -> KeyRing:
        """The keys of this moment; none while there is no ring, unless it is to be made. Raises VaultRingUnreadable."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            if not make:
                return KeyRing(keys=[])
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The first of several processes wins, and all read what it wrote.
            link_once(self.path, encode(KeyRing(keys=[_new_key()])) + b"\n", 0o600)
            data = self.path.read_bytes()
        try:
            ring = decode(data, KeyRing)
        except (InvalidDocument, DocumentTooNew):
            # Without the decoder's words, which show what stood there.
            raise VaultRingUnreadable(path=self.path, problem="it is not a ring of keys that this Hedgerow reads") from None
        if not ring.keys or any(len(key.key) != _KEY_BYTES or key.id != _id_of(key.key) for key in ring.keys):
            raise VaultRingUnreadable(path=self.path, problem="a key in it is damaged")
        return ring


def _new_key() -> VaultKey:
    key = secrets.token_bytes(_KEY_BYTES)
    return VaultKey(id=_id_of(key), key=key)


def _id_of(key: bytes) -> str:
    return sha256(b"hedgerow vault key\0" + key).hexdigest()[:_ID_HEX]


def _seal(key: VaultKey, name: str, value: bytes) -> Sealed:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return Sealed(key.id, nonce + AESGCM(key.key).encrypt(nonce, value, _bound_to(key.id, name)))


def _bound_to(key_id: str, name: str) -> bytes:
    """What a value cannot be moved away from: its record and its key."""
    return f"hedgerow vault 1\0{key_id}\0{name}".encode()
