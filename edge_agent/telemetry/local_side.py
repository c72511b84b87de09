"""The device's side towards its modules: the buffer, the routes into it, and every way by which messages come and go here.

Order matters. Up: routes before the first message, ports before the first module (it is told them). Down: the ways in end before
the buffer does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.decisions import DecisionLog
from edge_agent.engines.heartbeats import Heartbeats
from edge_agent.link.desired import DesiredKeeper
from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile.situation import EngineKind
from edge_agent.settings import AgentSettings
from edge_agent.state_store import StateStore, intake_port, keep_intake_port
from edge_agent.telemetry.admission import Admission
from edge_agent.telemetry.in_force import put_in_force
from edge_agent.telemetry.intake import Intake
from edge_agent.telemetry.module_inputs import ModuleInputs
from edge_agent.telemetry.mqtt.local_hub import LocalHub
from edge_agent.telemetry.mqtt.parts import make_local_hub, open_local_hub
from edge_agent.telemetry.outbox import Limits, Outbox
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.router import router_of
from edge_agent.telemetry.sources import FindAddress, Sources
from edge_agent.telemetry.stdout_lines import LinesOf
from edge_agent.telemetry.tokens import Tokens
from edge_agent.telemetry.twin_changes import TwinChanges
from edge_agent.twins.desired import twin_of
from edge_agent.twins.http import TwinsHttp
from edge_agent.twins.reported import ReportedTwins
from hedgerow.clock import Clock
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.shadow import belongs_to_shadow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What the rest of the agent gives: ``on_stored`` is told of new messages, ``exposition`` is the text of ``/metrics``."""

    config: DeviceConfig
    settings: AgentSettings
    store: StateStore
    desired: DesiredKeeper
    decisions: DecisionLog
    heartbeats: Heartbeats
    metrics: Metrics
    clock: Clock
    lines_of: LinesOf
    find_address: FindAddress
    exposition: Callable[[], str]
    on_stored: Callable[[], None]


class LocalSide:
    """Buffer, routes, twins, HTTP port, MQTT port, and what is collected. Follows the desired state by itself."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        limit = around.settings.max_message_bytes
        self.outbox = self._make_outbox()
        self.reception = Reception(self.outbox, router_of(None, around.config.name), around.metrics)
        self._inputs = ModuleInputs(self.outbox)
        self.twins = ReportedTwins(around.store.folder / "twins", around.clock, around.metrics)
        self.twins.on_change = around.on_stored
        self.twins.on_reported = TwinChanges(self.reception, around.clock, around.metrics, limit).told
        self._twins_http = TwinsHttp(self.twins, lambda module: twin_of(around.desired.state, module), around.metrics)
        self._admission = Admission(around.clock)
        tokens = Tokens(around.config.key_bytes(), self._admission.admits)
        self.intake = self._make_intake(tokens)
        self.hub = self._make_hub(tokens)
        self._sources = Sources(
            around.lines_of,
            around.find_address,
            self.reception,
            around.store,
            around.clock,
            around.metrics,
            max_message_bytes=limit,
        )
        around.desired.on_state = self._in_force
        self.twins.load()

    def open(self) -> None:
        """Listen. Raises OSError when not even a local port can be had."""
        for name in self.twins.damaged:
            self._around.decisions.record(None, "set-aside", f"twins/{name} was damaged")
        open_local_hub(self.hub, self._around.store, self._around.settings.mqtt_port)
        before = intake_port(self._around.store)
        port = self.intake.start(self._around.settings.intake_port or before)
        if port == before:
            return
        try:
            keep_intake_port(self._around.store, port)
        except OSError as problem:
            log.warning("the local port cannot be remembered, the next agent may get another: %s", problem)

    def also_listen(self, host: str) -> None:
        """Listen on the address by which containers reach this host."""
        self.intake.also_listen(host)
        self.hub.also_listen(host)

    def environment(self, module: str, kind: EngineKind) -> dict[str, str]:
        """What a module is told. A shadow is told of no way by which its answers could get out."""
        if belongs_to_shadow(module):
            return {}
        return {**self.intake.environment(module, kind), **self.hub.environment(kind)}

    def close(self) -> None:
        """Take no more messages, finish what was taken, close the buffer."""
        self._sources.close()
        self._twins_http.close()
        self.intake.close()
        self.hub.close()
        self.twins.close()
        self.outbox.close()

    def _make_intake(self, tokens: Tokens) -> Intake:
        around = self._around
        return Intake(
            self.reception,
            self._inputs,
            tokens,
            around.clock,
            around.metrics,
            max_message_bytes=around.settings.max_message_bytes,
            exposition=around.exposition,
            on_heartbeat=around.heartbeats.on_heartbeat,
            twins=self._twins_http,
        )

    def _make_hub(self, tokens: Tokens) -> LocalHub:
        around = self._around
        return make_local_hub(
            around.config,
            around.desired,
            self.outbox,
            self.reception,
            around.clock,
            around.metrics,
            max_message_bytes=around.settings.max_message_bytes,
            on_heartbeat=around.heartbeats.on_heartbeat,
            twins=self.twins,
            tokens=tokens,
        )

    def _make_outbox(self) -> Outbox:
        settings, decisions = self._around.settings, self._around.decisions
        return Outbox(
            self._around.store.outbox,
            Limits(settings.quota_bytes, settings.replay_bytes, settings.overflow),
            on_stored=self._stored,
            on_damage=lambda problem: decisions.record(None, "set-aside", f"the telemetry buffer was damaged: {problem}"),
        )

    def _stored(self) -> None:
        self._around.on_stored()
        self._inputs.hurry()
        self.hub.hurry()

    def _in_force(self, state: DesiredState) -> None:
        longest_stop_s = max((module.spec.stop_grace_s for module in state.modules.values()), default=0.0)
        self._admission.follow(state.modules.keys(), longest_stop_s)
        put_in_force(state, self._around.config.name, self.reception, self.outbox, self._around.decisions)
        self.twins.keep_only(state.modules)
        self.hub.twins_changed()
        self._twins_http.changed()
        self._sources.follow(state)
