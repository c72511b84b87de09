"""Counters of the agent and the Prometheus text of ``/metrics``; ``observing/metric_names.py`` has the names.

What can be read off something else (buffer, modules, machine) is read when it is scraped; only events are counted here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge_agent.observing.metric_names import NAMES
from hedgerow.contracts.status import ModuleState, ShadowStatus, StatusReport

# IoT Edge's. They are of the newest values only, so that a page of an agent that runs for years says how it is now.
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)
VALUES_KEPT = 200
# Label values come from names of modules, streams and methods; whatever made them endless would not take the memory with it.
SERIES_MAX = 4000
# Of one name: a module that invents outputs must not use up the places of all other counters.
SERIES_OF_ONE_MAX = 1000
_Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Sample:
    """One line of ``/metrics``; ``family`` is the metric it belongs to when that has another name (``_sum`` and ``_count``)."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    family: str = ""


class _Summary:
    """How many values there were, their sum, and the newest of them."""

    __slots__ = ("count", "newest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.newest: deque[float] = deque(maxlen=VALUES_KEPT)

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.newest.append(value)

    def samples(self, name: str, labels: Mapping[str, str]) -> list[Sample]:
        values = sorted(self.newest)
        quantiles = [
            Sample(name, values[min(len(values) - 1, int(quantile * len(values)))], {**labels, "quantile": str(quantile)}, name)
            for quantile in QUANTILES
        ]
        return [*quantiles, Sample(f"{name}_sum", self.total, labels, name), Sample(f"{name}_count", self.count, labels, name)]


class Metrics:
    """Event counters and summaries; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[_Key, float] = {}
        self._series: dict[str, int] = {}
        self._summaries: dict[_Key, _Summary] = {}

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        key = _key(name, labels)
        with self._lock:
            if key not in self._counts:
                of_name = self._series.get(name, 0)
                if of_name >= SERIES_OF_ONE_MAX or len(self._counts) >= SERIES_MAX:
                    return
                self._series[name] = of_name + 1
            self._counts[key] = self._counts.get(key, 0.0) + amount

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a summary."""
        self.observe_all(name, [value], **labels)

    def observe_all(self, name: str, values: Iterable[float], **labels: str) -> None:
        """Add values to a summary."""
        key = _key(name, labels)
        with self._lock:
            summary = self._summaries.get(key)
            if summary is None:
                if len(self._summaries) >= SERIES_MAX // 10:
                    return
                summary = self._summaries[key] = _Summary()
            for value in values:
                summary.add(value)

    def samples(self) -> list[Sample]:
        """All counters and summaries."""
        with self._lock:
            counts = [Sample(name, value, dict(labels)) for (name, labels), value in self._counts.items()]
            summaries = [
                sample for (name, labels), summary in self._summaries.items() for sample in summary.samples(name, dict(labels))
            ]
        return counts + summaries


def _key(name: str, labels: Mapping[str, str]) -> _Key:
    # Most have one label, and are counted for every message.
    return (name, tuple(labels.items()) if len(labels) < 2 else tuple(sorted(labels.items())))


def of_report(report: StatusReport) -> list[Sample]:
    """Samples that a status report contains."""
    samples = [Sample("hedgerow_agent_desired_version", report.desired.version)]
    for name, module in report.modules.items():
        samples += [
            Sample("hedgerow_agent_module_state", float(module.state == state), {"module_name": name, "state": state})
            for state in ModuleState.__args__  # type: ignore[attr-defined]  # a Literal has its values there
        ]
        samples.append(Sample("hedgerow_agent_module_restarts_total", module.restart_count, {"module_name": name}))
        if module.shadow is not None:
            samples += _of_shadow(name, module.shadow)
    if report.buffer is not None:
        samples += [
            Sample("hedgerow_agent_outbox_queued_bytes", report.buffer.queued_bytes),
            Sample("hedgerow_agent_outbox_dropped_total", report.buffer.dropped_messages),
        ]
    return samples


def _of_shadow(module: str, shadow: ShadowStatus) -> list[Sample]:
    labels = {"module_name": module}
    counts = {"compared": shadow.compared, "different": shadow.different, "failed": shadow.failed, "dropped": shadow.dropped}
    samples = [Sample(f"hedgerow_agent_shadow_{name}_total", count, labels) for name, count in counts.items()]
    samples += [
        Sample("hedgerow_agent_shadow_state", float(shadow.state == state), {**labels, "state": state})
        for state in ModuleState.__args__  # type: ignore[attr-defined]  # a Literal has its values there
    ]
    if shadow.worst_difference is not None:
        samples.append(Sample("hedgerow_agent_shadow_worst_difference", shadow.worst_difference, labels))
    latencies = {"module": shadow.latency_p50_s, "shadow": shadow.shadow_latency_p50_s}
    return samples + [
        Sample("hedgerow_agent_shadow_latency_seconds", value, {**labels, "of": of})
        for of, value in latencies.items()
        if value is not None
    ]


def exposition(samples: Iterable[Sample], common: Mapping[str, str]) -> str:
    """Prometheus text format, one block for each metric; every sample gets the ``common`` labels."""
    lines: list[str] = []
    last = ""
    for sample in sorted(samples, key=lambda sample: sample.family or sample.name):
        family = sample.family or sample.name
        if family != last:
            kind, text = NAMES[family]
            lines += [f"# HELP {family} {text}", f"# TYPE {family} {kind}"]
            last = family
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in {**common, **sample.labels}.items())
        lines.append(f"{sample.name}{{{labels}}} {sample.value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
