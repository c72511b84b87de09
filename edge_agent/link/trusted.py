"""Which keys of the workspace this device believes: those of device.toml, until a desired state signed by them names others.

Kept is the chain of those desired states, as they were signed, and verified at each start from device.toml on: who can write
into the state folder cannot make this device believe a key. A link that an earlier set of keys signed as well makes those
between superfluous.

    crash after the desired state was stored, before the chain    the stored desired state is taken up at the start, and with it
                                                                  what it says of keys
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_agent.state_store import StateStore
from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.device import TRUSTED_KEYS_MAX, DeviceConfig, KeyUse, TrustedKey
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.signed import SignatureRefused, Verifier, open_signed
from hedgerow.errors import HedgerowError, InvalidDocument

FILE = "trusted.json"
_KEY_BYTES = 32
log = logging.getLogger(__name__)


class _Chain(msgspec.Struct, frozen=True):
    """``trusted.json``: base64 of signed desired states, oldest first."""

    links: list[str] = []


def verifiers(keys: Sequence[TrustedKey], use: KeyUse) -> Mapping[str, Verifier]:
    """Check functions, by key id, of those ``keys`` that may sign this."""
    return {key.keyid: _verifier(base64.b64decode(key.key, validate=True)) for key in keys if key.may_sign(use)}


class TrustedKeys:
    """One device's. Changed by the thread that takes desired states; read by any."""

    def __init__(self, config: DeviceConfig, store: StateStore) -> None:
        self._store = store
        self._uuid = config.device_uuid
        self._sets: list[list[TrustedKey]] = [config.trusted_keys]
        self._links: list[bytes] = []
        self._verifiers = _by_use(config.trusted_keys)

    @property
    def keyids(self) -> list[str]:
        """Of the keys that are believed now."""
        return [key.keyid for key in self._sets[-1]]

    def verifiers(self, use: KeyUse) -> Mapping[str, Verifier]:
        """For documents of this kind."""
        return self._verifiers[use]

    def load(self) -> None:
        """Take up what was believed before. A chain that does not hold is moved aside: what device.toml says counts then."""
        try:
            self.follow(self._store.load(FILE, _Chain) or _Chain())
        except (HedgerowError, ValueError) as problem:
            self._store.set_aside(self._store.folder / FILE, str(problem))
            self._forget(0)

    def follow(self, chain: _Chain) -> None:
        """Raises HedgerowError, ValueError at the first link that does not hold."""
        for link in chain.links:
            self._append(base64.b64decode(link, validate=True))

    def open_stored(self, envelope: bytes) -> bytes:
        """The payload of the desired state in force: what brought the newest keys was signed by those before them.

        Raises SignatureRefused, InvalidDocument.
        """
        try:
            return open_signed(envelope, PAYLOAD_DESIRED_STATE, self.verifiers("desired"))
        except SignatureRefused:
            if not self._links or envelope != self._links[-1]:
                raise
            return open_signed(envelope, PAYLOAD_DESIRED_STATE, verifiers(self._sets[-2], "desired"))

    def take(self, state: DesiredState, envelope: bytes) -> bool:
        """Believe the keys that an accepted desired state names; False when that changes nothing.

        A full disk does not keep them from counting: the stored desired state names them again at the next start.
        """
        if not state.trusted_keys or state.trusted_keys == self._sets[-1]:
            return False
        self._forget(self._first_that_signed(envelope))
        self._append(envelope)
        chain = _Chain([base64.b64encode(link).decode() for link in self._links])
        try:
            atomic_write(self._store.folder / FILE, encode(chain), mode=0o600)
        except OSError as problem:
            log.warning("the workspace's new keys cannot be stored: %s", problem)
        return True

    def _append(self, envelope: bytes) -> None:
        payload = open_signed(envelope, PAYLOAD_DESIRED_STATE, self.verifiers("desired"))
        state = decode(payload, DesiredState)
        if state.device_uuid != self._uuid:
            raise InvalidDocument(document=FILE, problem=f"it is of device {state.device_uuid}")
        check_keys(state)
        self._links.append(envelope)
        self._sets.append(state.trusted_keys)
        self._verifiers = _by_use(state.trusted_keys)

    def _first_that_signed(self, envelope: bytes) -> int:
        """How many links are needed before this one."""
        for place, keys in enumerate(self._sets):
            try:
                open_signed(envelope, PAYLOAD_DESIRED_STATE, verifiers(keys, "desired"))
            except SignatureRefused:
                continue
            return place
        return len(self._links)

    def _forget(self, kept: int) -> None:
        del self._links[kept:], self._sets[kept + 1 :]
        self._verifiers = _by_use(self._sets[-1])


def check_keys(state: DesiredState) -> None:
    """Raises InvalidDocument for keys by which nothing could ever be told to this device again, or that are none."""
    problem = ""
    if len(state.trusted_keys) > TRUSTED_KEYS_MAX:
        problem = f"it names {len(state.trusted_keys)} keys; {TRUSTED_KEYS_MAX} is the most"
    elif state.trusted_keys and not any(key.may_sign("desired") for key in state.trusted_keys):
        problem = "none of the keys that it names may sign desired states"
    elif not all(_is_key(key.key) for key in state.trusted_keys):
        problem = "one of the keys that it names is no Ed25519 key"
    if problem:
        raise InvalidDocument(document="DesiredState", problem=problem)


def trusted_in(config: DeviceConfig, folder: Path) -> TrustedKeys:
    """For commands that only look: a damaged chain stays where it is, and what device.toml says counts."""
    found = TrustedKeys(config, StateStore(folder))
    try:
        found.follow(decode((folder / FILE).read_bytes(), _Chain))
    except (HedgerowError, ValueError, OSError):
        return found
    return found


def _by_use(keys: Sequence[TrustedKey]) -> Mapping[KeyUse, Mapping[str, Verifier]]:
    return {"desired": verifiers(keys, "desired"), "methods": verifiers(keys, "methods")}


def _is_key(text: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        return False
    return True


def _verifier(raw: bytes) -> Verifier:
    key = Ed25519PublicKey.from_public_bytes(raw)

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return verify
