"""Puts the local hub together from what the agent has; ``assembly.py`` calls it once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_agent.link.desired import DesiredKeeper
from edge_agent.observing.metrics import Metrics
from edge_agent.state_store import StateStore, keep_mqtt_port, mqtt_port
from edge_agent.telemetry.mqtt.clients import Surroundings
from edge_agent.telemetry.mqtt.inputs import InputFeeder, place_of
from edge_agent.telemetry.mqtt.local_hub import LocalHub
from edge_agent.telemetry.mqtt.server import Connection
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.tokens import Tokens
from edge_agent.twins.desired import twin_of
from edge_agent.twins.reported import ReportedTwins
from hedgerow.clock import Clock
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.edge import DesiredState

log = logging.getLogger(__name__)


def make_local_hub(
    config: DeviceConfig,
    desired: DesiredKeeper,
    outbox: Outbox,
    reception: Reception,
    clock: Clock,
    metrics: Metrics,
    *,
    max_message_bytes: int,
    on_heartbeat: Callable[[str], None],
    twins: ReportedTwins,
    tokens: Tokens,
) -> LocalHub:
    """The local hub of a device; ``hurry`` of it belongs into the buffer's ``on_stored``."""
    feeder: InputFeeder[Connection] = InputFeeder(outbox, lambda stream: place_of(stream, reception.router.inputs))
    around = Surroundings(
        device=config.name,
        device_names=frozenset({config.name.lower(), config.device_uuid.lower()}),
        names=lambda module: other_names(desired.state, module),
        twin=lambda module: twin_of(desired.state, module),
        on_heartbeat=on_heartbeat,
        twins=twins,
    )
    return LocalHub(reception, feeder, tokens, clock, metrics, around, max_message_bytes=max_message_bytes)


def other_names(state: DesiredState | None, module: str) -> frozenset[str]:
    """The name that a module has elsewhere, in lower case."""
    wanted = state.modules.get(module) if state else None
    shown = wanted.spec.display_name if wanted else None
    return frozenset({shown.lower()}) if shown else frozenset()


def open_local_hub(hub: LocalHub, store: StateStore, wanted_port: int) -> None:
    """Start it on ``wanted_port``, else on the port of before: modules that outlive an agent were told it. Raises OSError."""
    before = mqtt_port(store)
    port = hub.start(wanted_port or before)
    if port == before:
        return
    try:
        keep_mqtt_port(store, port)
    except OSError as problem:
        log.warning("the MQTT port cannot be remembered, the next agent may get another: %s", problem)
