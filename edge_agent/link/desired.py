"""Takes signed desired states; keeps the newest that is meant for this device. The only way by which code gets onto it.

The exact bytes that were accepted are kept and verified again at each start, so booting needs no network and a file
changed on the disk is noticed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.errors import ForeignDesired, OlderDesired, WrongIncarnation
from edge_agent.link.trusted import TrustedKeys, check_keys
from edge_agent.state_store import StateStore
from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.signed import open_signed
from hedgerow.errors import HedgerowError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A desired state that was not accepted; ``version`` is what it claims to be, None when it cannot be read."""

    version: int | None
    problem: HedgerowError


@dataclass(frozen=True)
class Accepted:
    """A desired state in force; ``changed`` is False when it was in force before."""

    state: DesiredState
    changed: bool


class DesiredKeeper:
    """The desired state in force, on disk and in memory. Thread-safe. ``on_state`` hears each one that comes into force."""

    def __init__(self, config: DeviceConfig, store: StateStore) -> None:
        self._config = config
        self._store = store
        self.trusted = TrustedKeys(config, store)
        self._lock = threading.Lock()
        self._state: DesiredState | None = None
        self._payload = b""
        self.on_state: Callable[[DesiredState], None] = _nobody_listens

    @property
    def state(self) -> DesiredState | None:
        """What the device should run; None until something was accepted."""
        return self._state

    @property
    def version(self) -> int:
        """The highest version accepted, 0 at first."""
        return self._state.version if self._state else 0

    def load(self) -> DesiredState | None:
        """Take up what was accepted before. A damaged or altered file is moved aside: the hub sends it again."""
        self.trusted.load()
        try:
            envelope = self._store.desired.read_bytes()
        except FileNotFoundError:
            return None
        try:
            self._payload, self._state = self._read(self.trusted.open_stored(envelope))
            self.trusted.take(self._state, envelope)  # it may have been the last thing before a power cut
        except HedgerowError as problem:
            self._store.set_aside(self._store.desired, str(problem))
        if self._state is not None:
            self.on_state(self._state)
        return self._state

    def offer(self, envelope: bytes, incarnation: str) -> Accepted | Refusal:
        """Accept ``envelope`` or say why not. ``incarnation`` is the hub's, as told in this session's sealed welcome.

        Raises OSError when it cannot be stored; then nothing has changed.
        """
        claimed: int | None = None
        with self._lock:
            try:
                payload, state = self._open(envelope)
                claimed = state.version
                if payload == self._payload and self._state is not None:
                    return Accepted(self._state, changed=False)
                self._check_news(state, incarnation)
            except HedgerowError as problem:
                return Refusal(problem.fields.get("version", claimed), problem)  # type: ignore[arg-type]  # our own errors give ints
            atomic_write(self._store.desired, envelope, mode=0o600)
            self._payload, self._state = payload, state
            self.trusted.take(state, envelope)
            self.on_state(state)
            return Accepted(state, changed=True)

    def _open(self, envelope: bytes) -> tuple[bytes, DesiredState]:
        return self._read(open_signed(envelope, PAYLOAD_DESIRED_STATE, self.trusted.verifiers("desired")))

    def _read(self, payload: bytes) -> tuple[bytes, DesiredState]:
        state = decode(payload, DesiredState)
        if state.device_uuid != self._config.device_uuid:
            raise ForeignDesired(version=state.version, found=state.device_uuid, expected=self._config.device_uuid)
        return payload, state

    def _check_news(self, state: DesiredState, incarnation: str) -> None:
        if state.version <= self.version:
            raise OlderDesired(version=state.version, accepted=self.version)
        if state.incarnation != incarnation:
            raise WrongIncarnation(version=state.version, found=state.incarnation, expected=incarnation)
        check_keys(state)


def _nobody_listens(_state: DesiredState) -> None:
    """Until somebody wants to know."""
