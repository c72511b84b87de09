"""The keys of this device: that of device.toml, and the later ones that it fetched (``link/key_change.py``).

device.toml stays what it was; what follows is in ``keys.json`` of the state folder. The newest key seals and opens; older ones
are kept for the broker only, which may learn of the new one a moment later, or be one that was restored from a backup. What
modules hold (their tokens) is derived from the key in device.toml for ever: no module has to be told anything.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from edge_agent.state_store import StateStore
from hedgerow.contracts.broker_login import Login, device_login
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.device_keys import KeyGrant, key_of
from hedgerow.contracts.document import decode
from hedgerow.contracts.seal import DEVICE_KEY_BYTES
from hedgerow.errors import HedgerowError

FILE = "keys.json"
# More than a broker that was restored lies behind.
KEPT_MAX = 8
ROUNDS = 3
NOT_LET_IN = (
    "the broker refuses every login of this device: it was revoked, or its key was changed since this device.toml and state "
    "folder were made. Give it its newest state folder again, or enrol it anew (hedgerow device enroll)"
)


class KeptKey(msgspec.Struct, frozen=True):
    """``key`` is base64 of 32 bytes."""

    generation: int
    key: str


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """``keys.json``. ``toml_token`` tells by its hash which device.toml ``pull_token`` took the place of; ``taken``: the control
    plane has heard that the newest key is here."""

    device_uuid: str
    keys: list[KeptKey]
    pull_token: str
    toml_token: str
    taken: bool = False


class DeviceKeys:
    """Thread-safe. What was stored before is read at once."""

    def __init__(self, config: DeviceConfig, store: StateStore) -> None:
        self._config, self._store = config, store
        self._first = KeptKey(config.key_generation, config.device_key)
        self._lock = threading.Lock()
        self._kept = self._load()

    @property
    def generation(self) -> int:
        """Of the newest key."""
        return self._newest.generation

    @property
    def key(self) -> bytes:
        """The newest key, 32 bytes."""
        return base64.b64decode(self._newest.key, validate=True)

    @property
    def pull_token(self) -> str:
        """By which this device is known to the control plane's REST and OCI API."""
        kept = self._kept
        fetched = kept is not None and kept.toml_token == _hash(self._config.pull_token)
        return kept.pull_token if kept is not None and fetched else self._config.pull_token

    @property
    def untold(self) -> bool:
        """Whether the control plane has yet to hear that the newest key is here."""
        return self._kept is not None and not self._kept.taken

    def logins(self) -> list[Login]:
        """At the broker, the newest first."""
        kept = self._kept
        older = [self._first, *(kept.keys if kept else ())]
        return [device_login(self._config.device_uuid, base64.b64decode(one.key, validate=True)) for one in reversed(older)]

    def store(self, grant: KeyGrant) -> None:
        """Keep a later key, then use it. Raises OSError with everything as before, ValueError for what is no later key."""
        key_of(grant)
        with self._lock:
            if grant.generation <= self.generation:
                raise ValueError(f"key {grant.generation} is not newer than {self.generation}")
            before = self._kept.keys if self._kept else []
            keys = [*before, KeptKey(grant.generation, grant.device_key)][-KEPT_MAX:]
            self._write(
                KeyFile(
                    device_uuid=self._config.device_uuid,
                    keys=keys,
                    pull_token=grant.pull_token,
                    toml_token=_hash(self._config.pull_token),
                )
            )

    def told(self) -> None:
        """The control plane has heard of it. Raises OSError."""
        with self._lock:
            if self._kept is not None:
                self._write(msgspec.structs.replace(self._kept, taken=True))

    @property
    def _newest(self) -> KeptKey:
        kept = self._kept
        return kept.keys[-1] if kept else self._first

    def _write(self, file: KeyFile) -> None:
        self._store.save(FILE, file)
        self._kept = file

    def _load(self) -> KeyFile | None:
        """None when device.toml is of another device, or as new as what is kept: it was written anew."""
        found = self._store.load(FILE, KeyFile)
        if found is None or found.device_uuid != self._config.device_uuid or not found.keys:
            return None
        if not all(_is_key(one.key) for one in found.keys):
            self._store.set_aside(self._store.folder / FILE, "it holds what is no key")
            return None
        return found if found.keys[-1].generation > self._config.key_generation else None


def kept_secrets(config: DeviceConfig, folder: Path) -> set[str]:
    """What is kept in a state folder, for whoever only looks at it: nothing is moved aside."""
    try:
        file = decode((folder / FILE).read_bytes(), KeyFile)
    except (HedgerowError, OSError):
        return set()
    logins = (device_login(config.device_uuid, base64.b64decode(one.key)) for one in file.keys if _is_key(one.key))
    return {file.pull_token, *(one.key for one in file.keys), *(login.password for login in logins)}


class BrokerLogins:
    """Which login to try next: the newest, and while the broker refuses that one, those of before.

    ``say`` hears it once when the broker takes none of them, for a while: it may hear of a new device a moment later.
    """

    def __init__(self, keys: DeviceKeys, say: Callable[[str], object] | None = None) -> None:
        self._keys, self._say = keys, say
        self._place = 0
        self._generation = keys.generation

    def current(self) -> Login:
        """For the next connection."""
        if self._generation != self._keys.generation:
            self._generation, self._place = self._keys.generation, 0
        logins = self._keys.logins()
        return logins[self._place % len(logins)]

    def refused(self) -> None:
        """The broker did not take :meth:`current`."""
        self._place += 1
        if self._say is not None and self._place == ROUNDS * len(self._keys.logins()):
            self._say(NOT_LET_IN)


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == DEVICE_KEY_BYTES
    except ValueError:
        return False


def _hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()
