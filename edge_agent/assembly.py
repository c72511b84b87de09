"""Puts one agent together and takes it apart again: the only place that knows all parts.

Order matters. Up: the buffer and the local port come before the first module is started (it is told the port); the link comes
last, so a device without a network is complete before anything tries to reach it. Down: the other way round.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.agent import Agent
from edge_agent.bell import Bell
from edge_agent.chaos.room import ChaosRoom
from edge_agent.decisions import DecisionLog
from edge_agent.engines.asking import Asking
from edge_agent.engines.control_groups import open_groups
from edge_agent.engines.docker_parts import DockerParts
from edge_agent.engines.engine_process import ProcessEngine
from edge_agent.engines.heartbeats import Heartbeats
from edge_agent.engines.in_use import Engines
from edge_agent.engines.inside import Inside
from edge_agent.engines.probes import Prober
from edge_agent.engines.proofs import Proofs
from edge_agent.engines.sampling import Sampler
from edge_agent.engines.shadow_counts import ShadowFiles
from edge_agent.images.collector import Collector, Quotas
from edge_agent.images.image_store import ImageStore
from edge_agent.images.pull_oci import OciImages
from edge_agent.images.puller import Puller
from edge_agent.link.desired import DesiredKeeper
from edge_agent.link.hub_side import HubSide, HubSurroundings
from edge_agent.link.keys import DeviceKeys
from edge_agent.link.reporter import Reporter, Self
from edge_agent.methods.assembly import MethodsDevice, make_desk, module_lines
from edge_agent.methods.desk import Desk
from edge_agent.observing.gauges import Page
from edge_agent.observing.metrics import Metrics, Sample
from edge_agent.reconcile.hands import Hands
from edge_agent.reconcile.shadows import with_shadows
from edge_agent.reconcile.situation import EngineKind, Wanted
from edge_agent.reconcile.trials import Trials
from edge_agent.reconcile.way_back import WayBack
from edge_agent.registry_http import DeviceRegistry
from edge_agent.service.desired_release import DesiredRelease, release_place
from edge_agent.service.watchdog import Loop
from edge_agent.settings import AgentSettings
from edge_agent.state_store import StateStore
from edge_agent.telemetry.local_side import LocalSide, Surroundings
from hedgerow.clock import Clock, boot_id
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import encode
from hedgerow.contracts.status import BufferStatus

if TYPE_CHECKING:
    from edge_agent.checks.check import Check

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
        self._boot_id = boot_id()
        self._groups = open_groups(device.settings.cgroup)
        self.metrics = Metrics()
        self._limits_by = "rlimit" if self._groups is None else "cgroup"
        self.page = Page(device.config, device.version, self._limits_by, device.store.folder, clock, self.metrics)
        self.bell = Bell()
        store = device.store
        self.decisions = DecisionLog(store.decisions, clock)
        self.keys = DeviceKeys(device.config, store)
        self.desired = DesiredKeeper(device.config, store)
        self.heartbeats = Heartbeats(clock)
        self.local = self._make_local_side()
        images = ImageStore(store.images)
        self.process_engine = self._make_process_engine(images)
        self.docker = self._make_docker()
        self.engines = Engines(self.process_engine, self.docker.engine, store.folder / "docker.used", self.bell.ring)
        oci = OciImages(device.config, images, lambda: self.keys.pull_token)
        self.puller = Puller({"process": lambda: oci, "docker": self.docker.images}, self._images_changed)
        self.prober = Prober(self._make_asking().ask, clock, self.bell.ring)
        proofs = Proofs(store.folder / "proofs", images.path_of, device.module_environment, self.bell.ring)
        sampler = Sampler(self._address, self.bell.ring)
        self.trials = Trials(WayBack(store, self.decisions, self.metrics), proofs, sampler)
        self.hands = self._make_hands(proofs)
        self.chaos = self._make_chaos()
        self.hub_side = self._make_hub_side()
        self.reporter = self._make_reporter()
        self.decisions.on_new = self.reporter.hurry
        self.agent = self._make_agent()
        self.methods = self._make_methods()
        self.collector = self._make_collector(images)
        self.release = self._make_release()
        self._supervisor = threading.Thread(target=self.agent.run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Bring everything up; modules first, the network last. Raises OSError when not even a local port can be had."""
        # Routes before the first message: modules that outlived the last agent deliver at once.
        self.desired.load()
        self.local.open()
        self.decisions.record(
            None, "agent-start", f"agent {self._device.version} starts with desired version {self.desired.version}"
        )
        for name in self._device.store.damaged:
            self.decisions.record(None, "set-aside", f"{name} was damaged")
        self.reporter.start()
        self._supervisor.start()
        self.hub_side.start()
        self.collector.start()
        self.release.start()
        self.chaos.start()

    def close(self) -> None:
        """End in order; modules run on unless the settings say otherwise."""
        self.chaos.close()
        self.release.close()
        self.agent.stop()
        self._supervisor.join()
        self.prober.close()
        self.trials.close()
        if self._device.settings.stop_modules_on_exit:
            self.hands.wait_until_idle(ACTIONS_END_S)
            self.agent.stop_modules()
        self.decisions.record(None, "agent-stop", "the agent was told to end")
        self.collector.close()
        self.reporter.close()
        self.methods.close()
        self.hub_side.close()
        self.local.close()
        self.process_engine.close()

    def loops(self) -> list[Loop]:
        """The threads without which this agent is of no use; a watchdog wants to see them go round."""
        return [
            Loop("supervisor", lambda: self.agent.rounds, self.bell.ring),
            Loop("courier", lambda: self.hub_side.courier.rounds, self.hub_side.courier.new_data),
            Loop("intake", lambda: self.local.intake.turns, self.local.intake.wake),
            Loop("local-hub", lambda: self.local.hub.turns, self.local.hub.wake),
        ]

    def status_line(self) -> str:
        """How things are, for ``systemctl status``."""
        report = self.reporter.current()
        running = sum(module.state == "running" for module in report.modules.values())
        link = "in session" if report.session else self.hub_side.courier.standing.state
        return f"{running} of {len(report.modules)} modules running, desired version {report.desired.version}, {link}"

    def exposition(self) -> str:
        """The text of ``/metrics``."""
        state = [
            Sample("edgehub_connected_clients", self.local.hub.connected),
            *self.hub_side.samples(),
        ]
        return self.page.text(self.reporter.current(), self.local.outbox, state)

    def _make_process_engine(self, images: ImageStore) -> ProcessEngine:
        device = self._device
        log_bytes_max = device.settings.log_bytes_max
        environment = device.module_environment
        return ProcessEngine(device.store.modules, images.path_of, environment, log_bytes_max=log_bytes_max, groups=self._groups)

    def _make_hands(self, proofs: Proofs) -> Hands:
        return Hands(
            self.engines.of,
            self.puller,
            lambda wanted: self.local.environment(wanted.name, wanted.spec.kind),
            self.bell.ring,
            proofs.want,
        )

    def _make_chaos(self) -> ChaosRoom:
        return ChaosRoom(
            allowed=self._device.settings.chaos_allowed,
            folder=self._device.store.folder,
            report=lambda: self.reporter.current(),
            decisions=self.decisions,
        )

    def _make_agent(self) -> Agent:
        return Agent(
            self.desired,
            self.engines,
            self.hands,
            self.prober,
            self.puller,
            self.trials,
            self.reporter,
            self.decisions,
            self._device.store,
            self.metrics,
            self._clock,
            self.bell,
            self._boot_id,
        )

    def _make_local_side(self) -> LocalSide:
        device = self._device
        lines_of = module_lines(device.config, device.store.folder, lambda: self.desired.state, device.settings.docker_host)
        return LocalSide(
            Surroundings(
                config=device.config,
                settings=device.settings,
                store=device.store,
                desired=self.desired,
                decisions=self.decisions,
                heartbeats=self.heartbeats,
                metrics=self.metrics,
                clock=self._clock,
                lines_of=lines_of,
                find_address=self._address,
                exposition=self.exposition,
                on_stored=lambda: self.hub_side.courier.new_data(),
            )
        )

    def _make_hub_side(self) -> HubSide:
        device = self._device
        return HubSide(
            HubSurroundings(
                config=device.config,
                settings=device.settings,
                store=device.store,
                version=device.version,
                keys=self.keys,
                desired=self.desired,
                outbox=self.local.outbox,
                twins=self.local.twins,
                decisions=self.decisions,
                metrics=self.metrics,
                clock=self._clock,
                gate=self.chaos.link,
                on_desired=self._take_desired,
                on_method=lambda envelope, session, incarnation: self.methods.take(envelope, session, incarnation),
                on_link=self._link_changed,
                on_network=self._network_back,
            )
        )

    def _make_docker(self) -> DockerParts:
        device = self._device
        return DockerParts(
            device.config,
            device.settings,
            device.store.folder,
            self._clock,
            self.local.also_listen,
            lambda: self.keys.pull_token,
        )

    def _make_methods(self) -> Desk:
        device = self._device
        seen = MethodsDevice(
            config=device.config,
            folder=device.store.folder,
            state=lambda: self.desired.state,
            docker_host=device.settings.docker_host,
            upload_hosts=device.settings.upload_hosts,
            version=device.version,
            checks=self._checks,
            trusted=self.desired.trusted,
        )
        publish = self.hub_side.courier.publish_answer
        return make_desk(
            seen, self.agent, lambda part: publish(encode(part)), self.decisions, self._clock, self.metrics, self.local.hub
        )

    def _checks(self) -> list[Check]:
        # Megabytes that only a support bundle pays for.
        from edge_agent.checks.readiness import run_checks

        settings = self._device.settings
        return list(run_checks(settings.config, self._device.store.folder, self._clock.now(), settings.docker_host))

    def _take_desired(self, envelope: bytes, incarnation: str) -> None:
        self.agent.take_desired(envelope, incarnation)
        self.collector.hurry()
        self.release.hurry()

    def _network_back(self) -> None:
        self.agent.network_back()
        self.release.network_back()

    def _link_changed(self) -> None:
        self.reporter.hurry()
        # The way to the registry may be back together with the way to the hub.
        self.puller.hurry()

    def _images_changed(self) -> None:
        self.bell.ring()
        self.collector.look()

    def _make_collector(self, images: ImageStore) -> Collector:
        settings = self._device.settings
        return Collector(
            self._device.store.folder,
            images,
            [self.docker.ledger],
            Quotas(settings.image_quota_bytes, timedelta(days=settings.image_unused_days), settings.disk_free_min_bytes),
            self._clock,
            in_use=self._images_in_use,
            modules=lambda: with_shadows(self.desired.state.modules) if self.desired.state else (),
            on_freed=self._freed,
        )

    def _images_in_use(self) -> frozenset[str] | None:
        kept, state = self.agent.images_kept, self.desired.state
        if kept is None or state is None:
            return None
        # What was accepted this very moment is not in the last round's answer yet.
        modules = with_shadows(state.modules).values()
        wanted = {module.image.digest if module.image else module.spec.image for module in modules}
        return kept | {image for image in wanted if image is not None}

    def _freed(self, size_bytes: int, words: str) -> None:
        self.decisions.record(None, "garbage", words)
        self.metrics.count("hedgerow_agent_garbage_freed_bytes_total", size_bytes)
        # A pull may have failed for want of this very space.
        self.puller.hurry()

    def _make_reporter(self) -> Reporter:
        device, limits = self._device, self._limits_by
        return Reporter(
            Self(device.config.device_uuid, device.version, self._boot_id, device.settings.report_period_s, limits),
            device.store,
            self._clock,
            self.decisions,
            session=lambda: self.hub_side.courier.session,
            buffer=self._buffer_status,
            publish=self.hub_side.courier.publish_status,
            link=lambda: self.hub_side.courier.standing,
            agent_release=lambda: self.release.status,
            trusts=lambda: self.desired.trusted.keyids,
            with_counts=ShadowFiles(self.process_engine.work_folder).with_counts,
        )

    def _make_release(self) -> DesiredRelease:
        device, news = self._device, self.reporter.hurry
        place = release_place(device.settings, device.store.folder, device.version)
        registry = DeviceRegistry(device.config, lambda: self.keys.pull_token)
        return DesiredRelease(place, registry, lambda: self.desired.state, self.decisions, self._clock, on_news=news)

    def _buffer_status(self) -> BufferStatus:
        totals = self.local.outbox.totals
        return BufferStatus(
            epoch=totals.epoch,
            queued_messages=totals.queued_messages,
            queued_bytes=totals.queued_bytes,
            dropped_messages=totals.dropped,
        )

    def _make_asking(self) -> Asking:
        device = self._device

        def environment(wanted: Wanted) -> dict[str, str]:
            added = self.local.environment(wanted.name, wanted.spec.kind)
            return {**device.module_environment, **wanted.spec.variables, **added}

        inside = Inside(device.config, device.settings.docker_host, environment, self.process_engine.work_folder)
        return Asking(self._address, inside.run, self.heartbeats)

    def _address(self, kind: EngineKind, name: str) -> str | None:
        return self.engines.of(kind).address(name)


def module_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What process modules get of the agent's environment: where programs are and how text is written, nothing secret."""
    kept = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    base = {name: environment[name] for name in kept if name in environment}
    return {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1", **base}
