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


class Slot:
    """One number of one worker."""

    __slots__ = ("_numbers", "_place")

    def __init__(self, numbers: memoryview[float], place: int) -> None:
        self._numbers, self._place = numbers, place

    def add(self, amount: float = 1.0) -> None:
        self._numbers[self._place] += amount

    def set(self, value: float) -> None:
        self._numbers[self._place] = value


class RouteCounters:
    """What the answers of one scoring route count."""

    def __init__(self, board: Board, route: str) -> None:
        base = ("route", route)
        self._statuses = {status: board.slot("hedgerow_requests_total", (base, ("status", status))) for status in STATUSES}
        self._buckets = [board.slot("hedgerow_request_seconds", (base, ("le", label))) for label in _BUCKET_LABELS]
        self._sum = board.slot("hedgerow_request_seconds", (base, ("", "sum")))
        self._ok = self._statuses["200"]

    def answered(self, status: int, seconds: float) -> None:
        """One answer."""
        (self._ok if status == 200 else self._statuses.get(str(status), self._statuses["other"])).add()
        self._buckets[bisect_left(BUCKETS_S, seconds)].add()
        self._sum.add(seconds)


class ModelCounters:
    """What the runs of one model count."""

    def __init__(self, board: Board, labels: Labels) -> None:
        self._rows = board.slot("hedgerow_scored_rows_total")
        self._success = board.slot("nv_inference_request_success", labels)
        self._count = board.slot("nv_inference_count", labels)
        self._runs = board.slot("nv_inference_exec_count", labels)
        self._request_us = board.slot("nv_inference_request_duration_us", labels)
        self._queue_us = board.slot("nv_inference_queue_duration_us", labels)
        self._infer_us = board.slot("nv_inference_compute_infer_duration_us", labels)
        self._failures = {
            reason: board.slot("nv_inference_request_failure", (*labels, ("reason", reason))) for reason in FAILURES
        }

    def scored(self, rows: int, queued_s: float, ran_s: float, *, first_of_run: bool = True) -> None:
        """One request that went well. Requests that shared a run count it once."""
        self._rows.add(rows)
        self._success.add()
        self._count.add(rows)
        if first_of_run:
            self._runs.add()
        self._request_us.add((queued_s + ran_s) * 1e6)
        self._queue_us.add(queued_s * 1e6)
        self._infer_us.add(ran_s * 1e6)

    def failed(self, reason: Failure) -> None:
        """One request that got no answer from the model."""
        self._failures[reason].add()


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

    def row_value(self, name: str, row: int, labels: Labels = ()) -> float:
        """One series of one worker."""
        return float(self._numbers[row * len(self._places) + self._places[name, labels]])

    def total(self, name: str, labels: Labels = ()) -> float:
        """Sum of one series over all workers."""
        place, width = self._places[name, labels], len(self._places)
        return sum(self._numbers[row * width + place] for row in range(self._rows))

    # What a request does to the numbers: handles that the event loop's thread keeps, without a look-up or a lock --------

    def slot(self, name: str, labels: Labels = ()) -> Slot:
        """One series of this worker's row, for one thread alone. KeyError for a series that no family declares."""
        return Slot(self._numbers, self._row * len(self._places) + self._places[name, labels])

    def route(self, route: str) -> RouteCounters:
        return RouteCounters(self, route)

    def model(self, model: ModelKey) -> ModelCounters:
        """KeyError for a model that the board was not made for."""
        return ModelCounters(self, self._models[model])

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
