"""The device's side towards its hub: the login at the broker, the session, desired states however they come, the device's key.

Order matters. Up: the certificate is looked after before the link is opened, and the key once there is a link. Down: the other
way round; nothing waits for a network.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.decisions import DecisionLog
from edge_agent.link.broker_login import BrokerLogin
from edge_agent.link.courier import Courier
from edge_agent.link.desired import DesiredKeeper
from edge_agent.link.desired_fetch import DesiredFetcher
from edge_agent.link.key_change import KeyChange
from edge_agent.link.keys import DeviceKeys
from edge_agent.link.link import Link
from edge_agent.link.twins import Reports, TwinSync
from edge_agent.link.uplink import Identity, Uplink
from edge_agent.observing.metrics import Metrics, Sample
from edge_agent.settings import AgentSettings
from edge_agent.state_store import StateStore, count_start
from edge_agent.telemetry.outbox import Outbox
from hedgerow.clock import Clock
from hedgerow.contracts.desired_reference import read_reference
from hedgerow.contracts.device import DeviceConfig


@dataclass(frozen=True)
class HubSurroundings:
    """What the rest of the agent gives.

    ``gate`` gives the link to use, given how one is made; ``on_desired`` gets signed envelopes with the hub's incarnation,
    ``on_method`` calls with session and incarnation; ``on_link`` hears of connections and sessions, ``on_network`` that the
    broker can be reached again.
    """

    config: DeviceConfig
    settings: AgentSettings
    store: StateStore
    version: str
    keys: DeviceKeys
    desired: DesiredKeeper
    outbox: Outbox
    twins: Reports
    decisions: DecisionLog
    metrics: Metrics
    clock: Clock
    gate: Callable[[Callable[[], Link]], Link]
    on_desired: Callable[[bytes, str], None]
    on_method: Callable[[bytes, str | None, str | None], None]
    on_link: Callable[[], None]
    on_network: Callable[[], None]


class HubSide:
    """Broker login, courier, what it fetches from the registry. Follows the desired state by itself."""

    def __init__(self, around: HubSurroundings) -> None:
        self._around = around
        self._was_connected = False
        self._refused = ""
        self._broker = BrokerLogin(around.config, around.store.folder, around.clock, around.decisions, around.keys)
        self._fetcher = DesiredFetcher(
            around.config,
            lambda: around.keys.pull_token,
            self._take_envelope,
            lambda problem: self._decided("desired-waits", problem.sentence()),
        )
        self.courier = self._make_courier()
        self._key_change = KeyChange(around.config, around.keys, decided=self._decided, changed=self.courier.new_data)

    def start(self) -> None:
        """Reach for the hub; returns at once."""
        self._broker.start()
        self.courier.start()
        self._look_at_key()

    def close(self) -> None:
        """What was not acknowledged stays in the buffer."""
        self._key_change.close()
        self.courier.close()
        self._fetcher.close()
        self._broker.close()

    def samples(self) -> list[Sample]:
        """For ``/metrics``."""
        return [
            Sample("hedgerow_agent_connected", float(self.courier.connected)),
            Sample("hedgerow_agent_session", float(self.courier.session is not None)),
            Sample("hedgerow_agent_revoked", float(self.courier.revoked)),
            *self._broker.samples(),
        ]

    def _make_courier(self) -> Courier:
        around, settings = self._around, self._around.settings
        identity = Identity(around.config.device_uuid, secrets.token_hex(8), count_start(around.store), around.version)
        uplink = Uplink(
            identity,
            around.outbox,
            batch_bytes=settings.batch_bytes,
            random=random.random,
            nonce=lambda: secrets.token_hex(16),
            backfill_per_s=settings.backfill_messages_per_s,
        )
        return Courier(
            around.config,
            around.gate(self._broker.link),
            uplink,
            around.clock,
            around.metrics,
            on_desired=self._take_desired,
            on_link=self._link_changed,
            desired_version=lambda: around.desired.version,
            on_method=around.on_method,
            twins=TwinSync(around.config.device_uuid, around.twins),
            key=lambda: around.keys.key,
        )

    def _take_desired(self, message: bytes, incarnation: str) -> None:
        reference = read_reference(message)
        if reference is None:
            self._take_envelope(message, incarnation)
        elif reference.version > self._around.desired.version:
            self._fetcher.want(reference, incarnation)

    def _take_envelope(self, envelope: bytes, incarnation: str) -> None:
        self._around.on_desired(envelope, incarnation)
        self._look_at_key()

    def _look_at_key(self) -> None:
        state = self._around.desired.state
        self._key_change.want(state.key_generation if state else 0)

    def _link_changed(self) -> None:
        if self.courier.connected and not self._was_connected:
            self._key_change.hurry()
            self._around.on_network()
        self._was_connected = self.courier.connected
        refused = self.courier.refused
        if refused and refused != self._refused:
            self._decided("revoked" if self.courier.revoked else "session-refused", refused)
        self._refused = refused
        self._around.on_link()

    def _decided(self, action: str, reason: str) -> None:
        self._around.decisions.record(None, action, reason)
