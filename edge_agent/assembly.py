"""Puts one agent together and takes it apart again: the only place that knows all parts.

Order matters. Up: the buffer and the local port come before the first module is started (it is told the port); the link comes
last, so a device without a network is complete before anything tries to reach it. Down: the other way round.
"""

from __future__ import annotations

import logging
import random
import secrets
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.agent import Agent
from edge_agent.bell import Bell
from edge_agent.decisions import DecisionLog
from edge_agent.engines.engine import Engine, ImageSource
from edge_agent.engines.engine_process import ProcessEngine
from edge_agent.engines.in_use import Engines
from edge_agent.engines.probes import Prober
from edge_agent.images.image_store import ImageStore
from edge_agent.images.pull_oci import OciImages
from edge_agent.images.puller import Puller
from edge_agent.link.courier import Courier
from edge_agent.link.desired import DesiredKeeper
from edge_agent.link.link_mqtt import MqttLink
from edge_agent.link.reporter import Reporter, Self
from edge_agent.link.uplink import Identity, Uplink
from edge_agent.metrics import Metrics, Sample, exposition, of_machine, of_report
from edge_agent.reconcile.hands import Hands
from edge_agent.settings import AgentSettings
from edge_agent.state_store import StateStore, count_start, intake_port, keep_intake_port
from edge_agent.telemetry.intake import Intake, Tokens
from edge_agent.telemetry.outbox import Limits, Outbox
from hedgerow.clock import Clock, boot_id
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.status import BufferStatus
from hedgerow.errors import MissingExtra

# A start that is under way when all modules are to be stopped is waited for so long.
ACTIONS_END_S = 5.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """Who this agent is and where it keeps things. ``module_environment`` is the base of every process module's environment."""

    config: DeviceConfig
    settings: AgentSettings
    store: StateStore
    version: str
    module_environment: Mapping[str, str]


class Assembly:
    """All parts of one agent. ``start`` returns at once; ``close`` leaves the modules running."""

    def __init__(self, device: Device, clock: Clock) -> None:
        self._device = device
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._boot_id = boot_id()
        self._refused = ""
        self.metrics = Metrics()
        self.bell = Bell()
        store = device.store
        self.decisions = DecisionLog(store.decisions, clock)
        self.desired = DesiredKeeper(device.config, store)
        self.outbox = self._make_outbox()
        self.intake = self._make_intake()
        images = ImageStore(store.images)
        self.process_engine = ProcessEngine(store.modules, images.path_of, device.module_environment)
        self.engines = Engines(self.process_engine, self._make_docker, store.folder / "docker.used", self.bell.ring)
        oci = OciImages(device.config, images)
        self.puller = Puller({"process": lambda: oci, "docker": self._make_docker_images}, self.bell.ring)
        self.prober = Prober(self._address, self.bell.ring)
        self.hands = Hands(
            self.engines.of, self.puller, lambda wanted: self.intake.environment(wanted.name, wanted.spec.kind), self.bell.ring
        )
        self.courier = self._make_courier()
        self.reporter = self._make_reporter()
        self.decisions.on_new = self.reporter.hurry
        self.agent = Agent(
            self.desired,
            self.engines,
            self.hands,
            self.prober,
            self.puller,
            self.reporter,
            self.decisions,
            store,
            self.metrics,
            clock,
            self.bell,
            self._boot_id,
        )
        self._supervisor = threading.Thread(target=self.agent.run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Bring everything up; modules first, the network last. Raises OSError when not even a local port can be had."""
        self._open_intake()
        self.desired.load()
        self.decisions.record(
            None, "agent-start", f"agent {self._device.version} starts with desired version {self.desired.version}"
        )
        for name in self._device.store.damaged:
            self.decisions.record(None, "set-aside", f"{name} was damaged")
        self.reporter.start()
        self._supervisor.start()
        self.courier.start()

    def close(self) -> None:
        """End in order; modules run on unless the settings say otherwise."""
        self.agent.stop()
        self._supervisor.join()
        self.prober.close()
        if self._device.settings.stop_modules_on_exit:
            self.hands.wait_until_idle(ACTIONS_END_S)
            self.agent.stop_modules()
        self.decisions.record(None, "agent-stop", "the agent was told to end")
        self.reporter.close()
        self.courier.close()
        self.intake.close()
        self.outbox.close()
        self.process_engine.close()

    def exposition(self) -> str:
        """The text of ``/metrics``."""
        state = [
            Sample("hedgerow_agent_connected", float(self.courier.connected)),
            Sample("hedgerow_agent_session", float(self.courier.session is not None)),
            Sample("hedgerow_agent_outbox_kept_bytes", self.outbox.totals.kept_bytes),
        ]
        machine = of_machine(self._device.store.folder, self._clock.monotonic_s() - self._started_s)
        return exposition(
            [*self.metrics.samples(), *of_report(self.reporter.current()), *machine, *state], self._device.config.name
        )

    def _make_outbox(self) -> Outbox:
        settings = self._device.settings
        return Outbox(
            self._device.store.outbox,
            Limits(settings.quota_bytes, settings.replay_bytes, settings.overflow),
            on_stored=lambda: self.courier.new_data(),
            on_damage=lambda problem: self.decisions.record(None, "set-aside", f"the telemetry buffer was damaged: {problem}"),
        )

    def _make_intake(self) -> Intake:
        device = self._device
        return Intake(
            self.outbox,
            Tokens(device.config.key_bytes()),
            self._clock,
            self.metrics,
            max_message_bytes=device.settings.max_message_bytes,
            exposition=self.exposition,
        )

    def _open_intake(self) -> None:
        before = intake_port(self._device.store)
        port = self.intake.start(self._device.settings.intake_port or before)
        if port == before:
            return
        try:
            keep_intake_port(self._device.store, port)
        except OSError as problem:
            log.warning("the local port cannot be remembered, the next agent may get another: %s", problem)

    def _make_courier(self) -> Courier:
        config, settings = self._device.config, self._device.settings
        identity = Identity(config.device_uuid, secrets.token_hex(8), count_start(self._device.store), self._device.version)
        uplink = Uplink(
            identity, self.outbox, batch_bytes=settings.batch_bytes, random=random.random, nonce=lambda: secrets.token_hex(16)
        )
        return Courier(
            config,
            MqttLink(config.broker_url, f"hedgerow-{config.device_uuid}"),
            uplink,
            self._clock,
            self.metrics,
            on_desired=lambda envelope, incarnation: self.agent.take_desired(envelope, incarnation),
            on_link=self._link_changed,
            desired_version=lambda: self.desired.version,
        )

    def _make_reporter(self) -> Reporter:
        device = self._device
        return Reporter(
            Self(device.config.device_uuid, device.version, self._boot_id, device.settings.report_period_s),
            device.store,
            self._clock,
            self.decisions,
            session=lambda: self.courier.session,
            buffer=self._buffer_status,
            publish=self.courier.publish_status,
        )

    def _buffer_status(self) -> BufferStatus:
        totals = self.outbox.totals
        return BufferStatus(
            epoch=totals.epoch,
            queued_messages=totals.queued_messages,
            queued_bytes=totals.queued_bytes,
            dropped_messages=totals.dropped,
        )

    def _link_changed(self) -> None:
        refused = self.courier.refused
        if refused and refused != self._refused:
            self.decisions.record(None, "session-refused", refused)
        self._refused = refused
        self.reporter.hurry()
        # The way to the registry may be back together with the way to the hub.
        self.puller.hurry()

    def _address(self, name: str) -> str | None:
        wanted = self.desired.state.modules.get(name) if self.desired.state else None
        return None if wanted is None else self.engines.of(wanted.spec.kind).address(name)

    def _make_docker(self) -> Engine:
        try:
            from edge_agent.engines.engine_docker import DockerEngine
        except ModuleNotFoundError as problem:
            raise MissingExtra(what="Docker modules", module=problem.name, extra="edge") from None
        allowed = [word.strip() for word in self._device.settings.docker_allow.split(",") if word.strip()]
        return DockerEngine(self._device.config, allowed, self.intake.also_listen, self._device.settings.docker_host)

    def _make_docker_images(self) -> ImageSource:
        try:
            from edge_agent.engines.engine_docker import DockerImages
        except ModuleNotFoundError as problem:
            raise MissingExtra(what="Docker modules", module=problem.name, extra="edge") from None
        return DockerImages(self._device.config, self._device.settings.docker_host)


def module_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What process modules get of the agent's environment: where programs are and how text is written, nothing secret."""
    kept = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    base = {name: environment[name] for name in kept if name in environment}
    return {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1", **base}
