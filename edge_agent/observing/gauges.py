"""The page of ``/metrics``: what was counted, and what is read off the agent's parts when somebody scrapes."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path

from edge_agent.observing.metrics import Metrics, Sample, exposition, of_report
from edge_agent.observing.usage import UsageView
from edge_agent.telemetry import figures
from edge_agent.telemetry.outbox import Outbox
from hedgerow.clock import Clock
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.status import StatusReport
from hedgerow.errors import HedgerowError

# IoT Edge's number for "behind all priorities".
_NO_PRIORITY = "2000000000"


class Page:
    """``folder`` is the state folder; ``limits_by`` as in a StatusReport. Every sample gets IoT Edge's three common labels."""

    def __init__(self, config: DeviceConfig, version: str, limits_by: str, folder: Path, clock: Clock, metrics: Metrics) -> None:
        self._metadata = metadata(version, limits_by)
        self._metrics = metrics
        self._usage = UsageView(folder, clock)
        self._labels = {
            "iothub": config.workspace_id,
            "edge_device": config.name,
            "instance_number": secrets.token_hex(16),
        }

    def text(self, report: StatusReport, outbox: Outbox, state: Iterable[Sample]) -> str:
        """Prometheus text format; ``state`` is what else is to be on it."""
        pids = {name: module.pid for name, module in report.modules.items() if module.pid is not None}
        samples = [
            *self._metrics.samples(),
            *of_report(report),
            *self._usage.samples(pids),
            *figures.samples(outbox),
            *of_queues(outbox),
            Sample("hedgerow_agent_outbox_kept_bytes", outbox.totals.kept_bytes),
            self._metadata,
            *state,
        ]
        return exposition(samples, self._labels)


def of_queues(outbox: Outbox) -> list[Sample]:
    """Messages that wait, by where they go and how urgent they are. A buffer that cannot be read now costs these lines."""
    try:
        queues = outbox.queues()
    except HedgerowError:
        return []
    waiting: dict[tuple[str, str], int] = {}
    for queue in queues:
        endpoint = queue.stream if queue.local else "upstream"
        key = (endpoint, _NO_PRIORITY if queue.priority is None else str(queue.priority))
        waiting[key] = waiting.get(key, 0) + queue.messages
    return [
        Sample("edgehub_queue_length", count, {"endpoint": endpoint, "priority": priority})
        for (endpoint, priority), count in waiting.items()
    ]


def metadata(version: str, limits_by: str) -> Sample:
    """The info metric: the agent's version, and what it runs on."""
    system = os.uname()
    labels = {
        "edge_agent_version": version,
        "host_information": f"{system.sysname} {system.release} {system.machine}",
        "python": sys.version.split()[0],
        "limits_by": limits_by,
    }
    return Sample("edgeAgent_metadata", 1.0, labels)
