"""Counters of the agent and the Prometheus text of ``/metrics``. Names of IoT Edge where the meaning is the same.

What can be read off something else (buffer, modules, machine) is read when it is scraped; only events are counted here.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hedgerow.contracts.status import ModuleState, StatusReport

_HELP: Mapping[str, tuple[str, str]] = {
    "edgeAgent_module_start_total": ("counter", "Starts of modules by the agent"),
    "edgeAgent_module_stop_total": ("counter", "Stops of modules by the agent"),
    "edgeAgent_total_time_expected_running_seconds": ("counter", "Time a module was wanted running"),
    "edgeAgent_total_time_running_correctly_seconds": ("counter", "Time a module was wanted running and ran"),
    "edgeAgent_iotedged_uptime_seconds": ("gauge", "Seconds since this agent started"),
    "edgeAgent_host_uptime_seconds": ("gauge", "Seconds since the machine started"),
    "edgeAgent_available_disk_space_bytes": ("gauge", "Free space on the disk of the state folder"),
    "edgeAgent_total_disk_space_bytes": ("gauge", "Size of the disk of the state folder"),
    "edgeAgent_used_memory_bytes": ("gauge", "Resident memory of the agent (host: of the machine)"),
    "edgeAgent_total_memory_bytes": ("gauge", "Memory of the machine"),
    "edgehub_queue_length": ("gauge", "Telemetry messages that the hub has not acknowledged"),
    "edgehub_messages_received_total": ("counter", "Telemetry messages stored for modules"),
    "hedgerow_agent_connected": ("gauge", "1 while the broker is connected"),
    "hedgerow_agent_session": ("gauge", "1 while the hub grants a session"),
    "hedgerow_agent_desired_version": ("gauge", "Version of the desired state in force"),
    "hedgerow_agent_desired_refused_total": ("counter", "Desired states refused, by key of the reason"),
    "hedgerow_agent_module_state": ("gauge", "1 for the state that a module is in"),
    "hedgerow_agent_module_restarts_total": ("counter", "Restarts of a module, by policy"),
    "hedgerow_agent_outbox_queued_bytes": ("gauge", "Bytes that the hub has not acknowledged"),
    "hedgerow_agent_outbox_kept_bytes": ("gauge", "Bytes in the buffer, acknowledged ones included"),
    "hedgerow_agent_outbox_dropped_total": ("counter", "Messages dropped by quota, reported to the hub as gaps"),
    "hedgerow_agent_batches_sent_total": ("counter", "Telemetry batches handed to the link, repeats included"),
    "hedgerow_agent_acks_total": ("counter", "Acknowledgements that arrived"),
    "hedgerow_agent_messages_refused_total": ("counter", "Messages from the broker that were dropped, by key of the reason"),
    "hedgerow_agent_intake_refused_total": ("counter", "Telemetry messages not taken from modules, by key of the reason"),
}


@dataclass(frozen=True)
class Sample:
    """One line of ``/metrics``."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class Metrics:
    """Event counters; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0.0) + amount

    def samples(self) -> list[Sample]:
        """All counters."""
        with self._lock:
            return [Sample(name, value, dict(labels)) for (name, labels), value in self._counts.items()]


def of_report(report: StatusReport) -> list[Sample]:
    """Samples that a status report contains."""
    samples = [Sample("hedgerow_agent_desired_version", report.desired.version)]
    for name, module in report.modules.items():
        samples += [
            Sample("hedgerow_agent_module_state", float(module.state == state), {"module_name": name, "state": state})
            for state in ModuleState.__args__  # type: ignore[attr-defined]  # a Literal has its values there
        ]
        samples.append(Sample("hedgerow_agent_module_restarts_total", module.restart_count, {"module_name": name}))
    if report.buffer is not None:
        samples += [
            Sample("edgehub_queue_length", report.buffer.queued_messages, {"endpoint": "upstream", "priority": "0"}),
            Sample("hedgerow_agent_outbox_queued_bytes", report.buffer.queued_bytes),
            Sample("hedgerow_agent_outbox_dropped_total", report.buffer.dropped_messages),
        ]
    return samples


def of_machine(folder: Path, uptime_s: float) -> list[Sample]:
    """Disk, memory and uptime as the kernel tells them; ``uptime_s`` is the agent's own."""
    disk = shutil.disk_usage(folder)
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * page
    host_uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return [
        Sample("edgeAgent_available_disk_space_bytes", disk.free, {"disk_name": "state"}),
        Sample("edgeAgent_total_disk_space_bytes", disk.total, {"disk_name": "state"}),
        Sample("edgeAgent_used_memory_bytes", resident, {"module_name": "edgeAgent"}),
        Sample("edgeAgent_used_memory_bytes", total - free, {"module_name": "host"}),
        Sample("edgeAgent_total_memory_bytes", total, {"module_name": "host"}),
        Sample("edgeAgent_host_uptime_seconds", host_uptime),
        Sample("edgeAgent_iotedged_uptime_seconds", uptime_s),
    ]


def exposition(samples: Iterable[Sample], device: str) -> str:
    """Prometheus text format; every sample gets the label ``edge_device``."""
    lines: list[str] = []
    last = ""
    for sample in sorted(samples, key=lambda sample: sample.name):
        if sample.name != last:
            kind, text = _HELP[sample.name]
            lines += [f"# HELP {sample.name} {text}", f"# TYPE {sample.name} {kind}"]
            last = sample.name
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in {"edge_device": device, **sample.labels}.items())
        lines.append(f"{sample.name}{{{labels}}} {sample.value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
