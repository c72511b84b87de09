"""Puts the methods of one agent together from its parts: what ``edge_agent/assembly.py`` makes, and what only methods need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edge_agent.decisions import DecisionLog
from edge_agent.engines.shadow_counts import ShadowFiles
from edge_agent.link.trusted import TrustedKeys
from edge_agent.methods.builtin import Agent, Parts, methods
from edge_agent.methods.bundle import BundleSource, write_bundle
from edge_agent.methods.desk import Desk, LocalModules, Method
from edge_agent.methods.errors import LogsUnreadable
from edge_agent.methods.gate import Gate
from edge_agent.methods.log_docker import docker_lines
from edge_agent.methods.log_lines import Line, Wanted
from edge_agent.methods.log_process import process_lines
from edge_agent.methods.logs import LinesOf, LogReader
from edge_agent.methods.shadow_differences import GET_SHADOW_DIFFERENCES, ShadowDifferences
from edge_agent.methods.tasks import Tasks
from edge_agent.methods.upload import Uploads, parse_hosts
from edge_agent.observing.metrics import Metrics
from hedgerow.clock import Clock
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.methods import MethodAnswer

GetState = Callable[[], DesiredState | None]


@dataclass(frozen=True)
class MethodsDevice:
    """The device as methods see it; ``folder`` is the state folder, ``checks`` the results of ``agent check``."""

    config: DeviceConfig
    folder: Path
    state: GetState
    docker_host: str | None
    upload_hosts: str
    version: str
    checks: Callable[[], list[Any]]
    trusted: TrustedKeys | None = None


def make_desk(
    device: MethodsDevice,
    agent: Agent,
    publish: Callable[[MethodAnswer], bool],
    decisions: DecisionLog,
    clock: Clock,
    metrics: Metrics,
    local: LocalModules | None = None,
) -> Desk:
    """Raises InvalidSetting for a bad ``upload_hosts``."""
    lines_of = module_lines(device.config, device.folder, device.state, device.docker_host)

    def modules() -> dict[str, str]:
        state = device.state()
        return {name: module.spec.shown_as(name) for name, module in state.modules.items()} if state else {}

    logs = LogReader(modules, lines_of, device.config.name)
    source = bundle_source(device, lines_of)

    def bundle(file: IO[bytes], since_s: float | None, until_s: float | None, with_logs: bool) -> None:
        write_bundle(file, source, clock.now(), since_s=since_s, until_s=until_s, with_logs=with_logs)

    uploads = Uploads(parse_hosts(device.upload_hosts))
    tasks = Tasks(device.folder / "uploads", uploads, logs, bundle, decisions, clock, device.config.name)
    shadows = ShadowFiles(lambda name: device.folder / "modules" / name / "work")
    differences = Method(ShadowDifferences(modules, shadows.differences), slow=True)
    table = {**methods(Parts(agent, modules, logs, tasks, clock)), GET_SHADOW_DIFFERENCES: differences}
    return Desk(Gate(device.config, device.trusted), table, publish, clock, metrics, local)


def bundle_source(device: MethodsDevice, lines_of: LinesOf | None = None) -> BundleSource:
    """What a support bundle of this device is made from; no agent needs to run."""
    return BundleSource(
        config=device.config,
        folder=device.folder,
        state=device.state,
        lines_of=lines_of or module_lines(device.config, device.folder, device.state, device.docker_host),
        checks=lambda: [dataclasses.asdict(check) for check in device.checks()],
        version=device.version,
    )


def module_lines(config: DeviceConfig, folder: Path, state: GetState, docker_host: str | None) -> LinesOf:
    """Reads the log of a module by its name, wherever its engine keeps it. Only names of the desired state reach a path."""

    def lines_of(module: str, wanted: Wanted) -> Generator[Line, None, None]:
        found = state()
        spec = found.modules.get(module) if found else None
        if spec is None:
            raise LogsUnreadable(module=module, problem="it is not in the desired state any more")
        if spec.spec.kind == "docker":
            return docker_lines(f"hedgerow-{config.device_uuid[:8]}-{module}", module, wanted, docker_host)
        return process_lines(folder / "modules" / module / "process" / "log", module, wanted)

    return lines_of
