"""Counters that are right with several workers: one shared memory map, one row of numbers per worker.

The series are known before the first fork (models, routes, statuses), so each has a fixed place and counting is one addition
in memory: no files (they would need a writable disk), no locks between processes (each row has one writer). A worker
that replaces another takes over its row, so counters never go back. Names are ours (``hedgerow_*``) plus Triton's
``nv_inference_*``, so that dashboards made for Triton work.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Labels = tuple[tuple[str, str], ...]
# Name and version.
ModelKey = tuple[str, str]

ROUTES = ("score", "infer")
STATUSES = ("200", "400", "404", "413", "431", "500", "503", "504", "other")
FAILURES = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BUCKET_LABELS = (*(format(bound, "g") for bound in BUCKETS_S), "+Inf")

Failure = Literal["REJECTED", "CANCELED", "BACKEND", "OTHER"]


@dataclass(frozen=True)
class Family:
    """One metric: its help and its series, each a label set. ``per_worker`` values belong to a living worker only."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Sequence[Labels] = ((),)
    per_worker: bool = False


def families(models: Iterable[ModelKey]) -> list[Family]:
    """Every metric of a server that serves ``models``, in the order of the page."""
    named: list[Labels] = [_model_labels(model) for model in models]
    per_route = [(("route", route),) for route in ROUTES]
    answers = [(("route", route), ("status", status)) for route in ROUTES for status in STATUSES]
    return [
        Family("hedgerow_requests_total", "counter", "Answered scoring requests", answers),
        Family("hedgerow_request_seconds", "histogram", "Time from a whole request to its answer", _histogram(per_route)),
        Family("hedgerow_scored_rows_total", "counter", "Rows scored"),
        Family("hedgerow_in_flight", "gauge", "Scoring requests being answered now", per_worker=True),
        Family("hedgerow_workers_ready", "gauge", "Workers that answer scoring requests", per_worker=True),
        Family("hedgerow_workers_started_total", "counter", "Workers started, replacements included"),
        Family("hedgerow_telemetry_sent_total", "counter", "Telemetry messages stored by the receiver"),
        Family("hedgerow_telemetry_failed_total", "counter", "Attempts to send telemetry that failed"),
        Family("hedgerow_telemetry_dropped_total", "counter", "Telemetry messages dropped because the queue was full"),
        Family("nv_inference_request_success", "counter", "Successful inference requests", named),
        Family("nv_inference_request_failure", "counter", "Failed inference requests", _with_reasons(named)),
        Family("nv_inference_count", "counter", "Inferences performed (rows)", named),
        Family("nv_inference_exec_count", "counter", "Model executions performed", named),
        Family("nv_inference_request_duration_us", "counter", "Cumulative request time", named),
        Family("nv_inference_queue_duration_us", "counter", "Cumulative time waiting for a turn", named),
        Family("nv_inference_compute_infer_duration_us", "counter", "Cumulative time in the model", named),
    ]


def _model_labels(model: ModelKey) -> Labels:
    name, version = model
    return (("model", name), ("version", version))


def _histogram(sets: Iterable[Labels]) -> list[Labels]:
    return [(*labels, part) for labels in sets for part in (*(("le", le) for le in _BUCKET_LABELS), ("", "sum"))]


def _with_reasons(named: Iterable[Labels]) -> list[Labels]:
    return [(*labels, ("reason", reason)) for labels in named for reason in FAILURES]


class Board:
    """The shared numbers. Made before the first fork; each worker then takes its row with :meth:`take_row`."""

    def __init__(self, models: Iterable[ModelKey], *, rows: int) -> None:
        self._models = {model: _model_labels(model) for model in models}
        self.families = families(self._models)
        keys = [(family.name, labels) for family in self.families for labels in family.labels]
        self._places = {key: place for place, key in enumerate(keys)}
        self._rows = rows
        # Anonymous and shared: children inherit it, nothing is left behind when the last process ends.
        self._numbers = memoryview(mmap.mmap(-1, rows * len(keys) * 8)).cast("d")
        self._lock = threading.Lock()
        self._row = 0

    def take_row(self, row: int) -> None:
        """From now on this process counts in ``row``; what belonged to the worker before it starts at zero."""
        self._row = row
        self.forget_worker(row)

    def forget_worker(self, row: int) -> None:
        """Zero what a dead worker cannot take back (gauges); its counters stay."""
        for family in self.families:
            if family.per_worker:
                for labels in family.labels:
                    self._numbers[row * len(self._places) + self._places[family.name, labels]] = 0.0

    def free_row(self, taken: Iterable[int]) -> int:
        """A row that none of ``taken`` uses. More workers than rows (a reload in full flight) share the last one."""
        used = set(taken)
        return next((row for row in range(self._rows) if row not in used), self._rows - 1)

    def add(self, name: str, amount: float = 1.0, labels: Labels = ()) -> None:
        """Count. KeyError for a series that no family declares."""
        place = self._row * len(self._places) + self._places[name, labels]
        with self._lock:
            self._numbers[place] += amount

    def total(self, name: str, labels: Labels = ()) -> float:
        """Sum of one series over all workers."""
        place, width = self._places[name, labels], len(self._places)
        return sum(self._numbers[row * width + place] for row in range(self._rows))

    # What a request does to the numbers -------------------------------------------------------------------------------

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One answer of a scoring route."""
        text = str(status)
        self.add("hedgerow_requests_total", 1, (("route", route), ("status", text if text in STATUSES else "other")))
        bucket = _BUCKET_LABELS[bisect_left(BUCKETS_S, seconds)]
        self.add("hedgerow_request_seconds", 1, (("route", route), ("le", bucket)))
        self.add("hedgerow_request_seconds", seconds, (("route", route), ("", "sum")))

    def scored(self, model: ModelKey, rows: int, queued_s: float, ran_s: float) -> None:
        """One successful execution of a model."""
        labels = self._models[model]
        self.add("hedgerow_scored_rows_total", rows)
        self.add("nv_inference_request_success", 1, labels)
        self.add("nv_inference_count", rows, labels)
        self.add("nv_inference_exec_count", 1, labels)
        self.add("nv_inference_request_duration_us", (queued_s + ran_s) * 1e6, labels)
        self.add("nv_inference_queue_duration_us", queued_s * 1e6, labels)
        self.add("nv_inference_compute_infer_duration_us", ran_s * 1e6, labels)

    def failed(self, model: ModelKey, reason: Failure) -> None:
        """One request for a model that got no answer from it."""
        self.add("nv_inference_request_failure", 1, (*self._models[model], ("reason", reason)))

    def page(self) -> str:
        """All series in the Prometheus text format, version 0.0.4."""
        lines: list[str] = []
        for family in self.families:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
            values = [(labels, self.total(family.name, labels)) for labels in family.labels]
            lines += _histogram_lines(family.name, values) if family.kind == "histogram" else _lines(family.name, values)
        return "\n".join(lines) + "\n"


def _lines(name: str, values: Iterable[tuple[Labels, float]]) -> list[str]:
    return [f"{name}{_label_text(labels)} {_number(value)}" for labels, value in values]


def _histogram_lines(name: str, values: Iterable[tuple[Labels, float]]) -> list[str]:
    """Buckets are stored apart and told cumulatively; the count is the last of them."""
    lines: list[str] = []
    running = 0.0
    for labels, value in values:
        *rest, (kind, edge) = labels
        if kind == "le":
            running += value
            lines.append(f"{name}_bucket{_label_text((*rest, ('le', edge)))} {_number(running)}")
        else:
            lines.append(f"{name}_sum{_label_text(rest)} {_number(value)}")
            lines.append(f"{name}_count{_label_text(rest)} {_number(running)}")
            running = 0.0
    return lines


def _label_text(labels: Iterable[tuple[str, str]]) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
