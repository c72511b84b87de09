"""Counters that are right with several workers: shared memory, one row of numbers per worker.

What a server counts has a fixed place, so counting is one addition in memory: no files (they would need a writable disk), no
locks between processes (each row has one writer). A worker that replaces another takes over its row, so counters never go back.

    row = | server's series | model 0's series | model 1's series | … |   and beside it the names of that row's models

A model that is loaded while the server runs takes the next place of its worker's row (:meth:`Board.model` does it). Which models
have which place differs by row; the page (metrics_page.py) adds up by name.
"""

from __future__ import annotations

import json
import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Protocol

from runtime.observing.batch_sizes import BatchSize, RunSizes, SizeBoard
from runtime.observing.metric_families import (
    BATCH_BUCKETS,
    BUCKETS_S,
    FAILURES,
    MODEL_FAMILIES,
    SERVER_FAMILIES,
    STATUSES,
    Failure,
    Labels,
    ModelKey,
    bucket_labels,
    model_labels,
)
from runtime.observing.metrics_page import MetricsPage

__all__ = ["Board", "Failure", "ModelCounters", "ModelKey", "RouteCounters", "Slot"]

# Azure's containers take a thousand models; the memory is only used when they come.
MOST_MODELS = 1024
_NAME_BYTES = 512
# Models beyond the most, or with names beyond any grammar, are counted together.
OTHERS: ModelKey = ("(others)", "")

_SERVER_PLACES = {
    key: place for place, key in enumerate((family.name, labels) for family in SERVER_FAMILIES for labels in family.labels)
}
_MODEL_PLACES = {
    key: place for place, key in enumerate((family.name, labels) for family in MODEL_FAMILIES for labels in family.labels)
}
_SERVER_WIDTH, _MODEL_WIDTH = len(_SERVER_PLACES), len(_MODEL_PLACES)
_ROW_WIDTH = _SERVER_WIDTH + MOST_MODELS * _MODEL_WIDTH
_PENDING = _MODEL_PLACES["nv_inference_pending_request_count", ()]
_RUNS = _MODEL_PLACES["nv_inference_exec_count", ()]


class Slot:
    """One number of one worker."""

    __slots__ = ("_numbers", "_place")

    def __init__(self, numbers: memoryview[float], place: int) -> None:
        self._numbers, self._place = numbers, place

    def add(self, amount: float = 1.0) -> None:
        self._numbers[self._place] += amount

    def set(self, value: float) -> None:
        self._numbers[self._place] = value


class Call(Protocol):
    """What was done for one request by a script (scripts/calls.py). Times are perf_counter's."""

    asked_at: float
    started_at: float
    finished_at: float


class Asker(Protocol):
    """Who asked: its request was whole at ``started_at``."""

    started_at: float


class Run(Protocol):
    """One run of a model (models/jobs.py), with the rows of all who shared it. ``counted`` is set here."""

    rows: int
    counted: bool
    started_at: float
    finished_at: float


class Job(Protocol):
    """One request for a run of a model (models/jobs.py); ``read_s`` is what reading its body took on the model's thread."""

    rows: int
    asked_at: float
    error: BaseException | None

    @property
    def caller(self) -> Asker: ...

    @property
    def run(self) -> Run: ...

    @property
    def read_s(self) -> float: ...


class RouteCounters:
    """What the answers of one scoring route count."""

    def __init__(self, numbers: memoryview[float], base: int, route: str) -> None:
        label = ("route", route)
        places = _SERVER_PLACES
        self._numbers = numbers
        self._statuses = {
            int(status): base + places["hedgerow_requests_total", (label, ("status", status))]
            for status in STATUSES
            if status != "other"
        }
        self._other = base + places["hedgerow_requests_total", (label, ("status", "other"))]
        self._bucket = base + places["hedgerow_request_seconds", (label, ("le", bucket_labels(BUCKETS_S)[0]))]
        self._sum = base + places["hedgerow_request_seconds", (label, ("", "sum"))]

    def answered(self, status: int, seconds: float) -> None:
        """One answer."""
        numbers = self._numbers
        numbers[self._statuses.get(status, self._other)] += 1.0
        # A histogram's buckets stand side by side.
        numbers[self._bucket + bisect_left(BUCKETS_S, seconds)] += 1.0
        numbers[self._sum] += seconds


class ModelCounters:
    """What the runs of one model count."""

    def __init__(self, numbers: memoryview[float], rows_place: int, base: int, sizes: RunSizes) -> None:
        at = _MODEL_PLACES
        self._sizes_ran = sizes.ran
        self._numbers, self._base, self._rows = numbers, base, rows_place
        self._success = base + at["nv_inference_request_success", ()]
        self._count = base + at["nv_inference_count", ()]
        self._runs = base + at["nv_inference_exec_count", ()]
        self._request_us = base + at["nv_inference_request_duration_us", ()]
        self._queue_us = base + at["nv_inference_queue_duration_us", ()]
        self._input_us = base + at["nv_inference_compute_input_duration_us", ()]
        self._infer_us = base + at["nv_inference_compute_infer_duration_us", ()]
        self._output_us = base + at["nv_inference_compute_output_duration_us", ()]
        self._batch = base + at["hedgerow_batch_rows", (("le", bucket_labels(BATCH_BUCKETS)[0]),)]
        self._batch_sum = base + at["hedgerow_batch_rows", (("", "sum"),)]
        self._failures = {reason: base + at["nv_inference_request_failure", (("reason", reason),)] for reason in FAILURES}

    def ran(self, jobs: Sequence[Job], now: float) -> None:
        """Requests that were answered by ``now`` (perf_counter's); those that went well count."""
        requests = rows = 0
        request_s = queue_s = input_s = infer_s = output_s = 0.0
        for job in jobs:
            if job.error is not None:
                continue
            run, received_at, asked_at, read_s = job.run, job.caller.started_at, job.asked_at, job.read_s
            started_at, finished_at = run.started_at, run.finished_at
            requests += 1
            rows += job.rows
            request_s += now - received_at
            queue_s += started_at - asked_at - read_s
            input_s += asked_at - received_at + read_s
            infer_s += finished_at - started_at
            output_s += now - finished_at
            if not run.counted:
                run.counted = True
                self._count_run(run.rows, asked_at - received_at + read_s, finished_at - started_at, now - finished_at)
        numbers = self._numbers
        numbers[self._rows] += rows
        numbers[self._success] += requests
        numbers[self._count] += rows
        numbers[self._request_us] += request_s * 1e6
        numbers[self._queue_us] += queue_s * 1e6
        numbers[self._input_us] += input_s * 1e6
        numbers[self._infer_us] += infer_s * 1e6
        numbers[self._output_us] += output_s * 1e6

    def called(self, call: Call, received_at: float, now: float) -> None:
        """One request that a script answered well: it was whole at ``received_at``, answered ``now``, both perf_counter's."""
        numbers = self._numbers
        numbers[self._rows] += 1.0
        numbers[self._success] += 1.0
        numbers[self._count] += 1.0
        numbers[self._request_us] += (now - received_at) * 1e6
        numbers[self._queue_us] += (call.started_at - call.asked_at) * 1e6
        numbers[self._input_us] += (call.asked_at - received_at) * 1e6
        numbers[self._infer_us] += (call.finished_at - call.started_at) * 1e6
        numbers[self._output_us] += (now - call.finished_at) * 1e6
        self._count_run(1, call.asked_at - received_at, call.finished_at - call.started_at, now - call.finished_at)

    def _count_run(self, rows: int, input_s: float, infer_s: float, output_s: float) -> None:
        """A run and its parts, the first two and the last as its first request had them."""
        numbers = self._numbers
        numbers[self._runs] += 1.0
        numbers[self._batch + bisect_left(BATCH_BUCKETS, rows)] += 1.0
        numbers[self._batch_sum] += rows
        self._sizes_ran(rows, input_s, infer_s, output_s)

    def failed(self, reason: Failure) -> None:
        """One request that got no answer from the model."""
        self._numbers[self._failures[reason]] += 1.0

    def pending(self, count: int) -> None:
        """How many requests wait for the model now."""
        self._numbers[self._base + _PENDING] = float(count)


class Board:
    """The shared numbers. Made before the first fork; each worker then takes its row with :meth:`take_row`."""

    def __init__(self, models: Iterable[ModelKey], *, rows: int) -> None:
        # Anonymous and shared: children inherit it, nothing is left behind when the last process ends.
        self._numbers = memoryview(mmap.mmap(-1, rows * _ROW_WIDTH * 8)).cast("d")
        self._sizes = SizeBoard(rows=rows, models=MOST_MODELS)
        self._names = memoryview(mmap.mmap(-1, rows * MOST_MODELS * _NAME_BYTES))
        self._rows = rows
        self._lock = threading.Lock()
        # What was read of each row's names; they are only ever added to.
        self._known: list[dict[ModelKey, int]] = [{} for _ in range(rows)]
        self._row = 0
        self._page = MetricsPage()
        self.rows_total = _SERVER_PLACES["hedgerow_scored_rows_total", ()]
        for model in models:
            for row in range(rows):
                self._model_place(row, model)

    # Rows and the workers that own them -------------------------------------------------------------------------------

    def take_row(self, row: int) -> None:
        """From now on this process counts in ``row``; what belonged to the worker before it starts at zero."""
        self._row = row
        self.forget_worker(row)

    def forget_worker(self, row: int) -> None:
        """Zero what a dead worker cannot take back (gauges); its counters stay."""
        base = row * _ROW_WIDTH
        for family in SERVER_FAMILIES:
            if family.per_worker:
                for labels in family.labels:
                    self._numbers[base + _SERVER_PLACES[family.name, labels]] = 0.0
        for place in self._models_of(row).values():
            self._numbers[base + _SERVER_WIDTH + place * _MODEL_WIDTH + _PENDING] = 0.0

    def free_row(self, taken: Iterable[int]) -> int:
        """A row that none of ``taken`` uses. More workers than rows (a reload in full flight) share the last one."""
        used = set(taken)
        return next((row for row in range(self._rows) if row not in used), self._rows - 1)

    # Counting ---------------------------------------------------------------------------------------------------------

    def add(self, name: str, amount: float = 1.0, labels: Labels = ()) -> None:
        """Count one of the server's series, from any thread. KeyError for one that no family declares."""
        place = self._row * _ROW_WIDTH + _SERVER_PLACES[name, labels]
        with self._lock:
            self._numbers[place] += amount

    def slot(self, name: str, labels: Labels = ()) -> Slot:
        """One of the server's series in this worker's row, for one thread alone. KeyError for one that no family declares."""
        return Slot(self._numbers, self._row * _ROW_WIDTH + _SERVER_PLACES[name, labels])

    def route(self, route: str) -> RouteCounters:
        """KeyError for a route that is not in ROUTES."""
        return RouteCounters(self._numbers, self._row * _ROW_WIDTH, route)

    def model(self, model: ModelKey) -> ModelCounters:
        """The counters of a model, whenever it is loaded; the same name and version goes on where it was."""
        base = self._row * _ROW_WIDTH
        place = self._model_place(self._row, model)
        start = base + _SERVER_WIDTH + place * _MODEL_WIDTH
        return ModelCounters(self._numbers, base + self.rows_total, start, self._sizes.of(self._row, place))

    # Reading ----------------------------------------------------------------------------------------------------------

    def row_value(self, name: str, row: int, labels: Labels = ()) -> float:
        """One of the server's series of one worker."""
        return float(self._numbers[row * _ROW_WIDTH + _SERVER_PLACES[name, labels]])

    def values(self, name: str, labels: Labels = ()) -> list[float]:
        """One of the server's series, of each worker."""
        numbers, place = self._numbers, _SERVER_PLACES[name, labels]
        return [numbers[row * _ROW_WIDTH + place] for row in range(self._rows)]

    def total(self, name: str, labels: Labels = ()) -> float:
        """Sum of one series over all workers; a model's series has ``model`` and ``version`` as its first labels."""
        if (name, labels) in _SERVER_PLACES:
            return sum(self.values(name, labels))
        (_, model), (_, version), *rest = labels
        return self.model_values((model, version))[_MODEL_PLACES[name, tuple(rest)]]

    def models(self) -> list[ModelKey]:
        """Every model that any worker counted for, in the order in which they came."""
        found: dict[ModelKey, None] = {}
        for row in range(self._rows):
            found.update(dict.fromkeys(self._models_of(row)))
        return list(found)

    def model_values(self, model: ModelKey) -> list[float]:
        """A model's series over all workers, in the order of MODEL_FAMILIES. Zeros for a model that nobody knows."""
        totals = [0.0] * _MODEL_WIDTH
        for row in range(self._rows):
            place = self._models_of(row).get(model)
            if place is not None:
                start = row * _ROW_WIDTH + _SERVER_WIDTH + place * _MODEL_WIDTH
                totals = [total + value for total, value in zip(totals, self._numbers[start : start + _MODEL_WIDTH], strict=True)]
        return totals

    def model_bytes(self, model: ModelKey) -> bytes:
        """What :meth:`model_values` adds up, as it lies in memory."""
        parts: list[bytes] = []
        for row in range(self._rows):
            place = self._models_of(row).get(model)
            if place is not None:
                start = row * _ROW_WIDTH + _SERVER_WIDTH + place * _MODEL_WIDTH
                parts.append(self._numbers[start : start + _MODEL_WIDTH].tobytes())
        return b"".join(parts)

    def batch_sizes(self, model: ModelKey) -> list[BatchSize]:
        """How often a model ran with how many rows, over all workers."""
        places = [(row, self._models_of(row).get(model)) for row in range(self._rows)]
        # Looking at memory that was never used takes it into use: only where there was a run.
        return self._sizes.told([(row, place) for row, place in places if place is not None and self._has_run(row, place)])

    def _has_run(self, row: int, place: int) -> bool:
        return bool(self._numbers[row * _ROW_WIDTH + _SERVER_WIDTH + place * _MODEL_WIDTH + _RUNS])

    def page(self) -> str:
        """All series in the Prometheus text format, version 0.0.4."""
        return self._page.text(self)

    # The names beside a row -------------------------------------------------------------------------------------------

    def _model_place(self, row: int, model: ModelKey) -> int:
        known = self._models_of(row)
        place = known.get(model)
        if place is not None:
            return place
        text = json.dumps(model).encode()
        if (len(known) >= MOST_MODELS - 1 or len(text) > _NAME_BYTES - 2) and model != OTHERS:
            return self._model_place(row, OTHERS)
        place = len(known)
        start = (row * MOST_MODELS + place) * _NAME_BYTES
        self._names[start + 2 : start + 2 + len(text)] = text
        # The length last: whoever reads meanwhile finds either no name or a whole one.
        self._names[start : start + 2] = len(text).to_bytes(2, "big")
        known[model] = place
        return place

    def _models_of(self, row: int) -> dict[ModelKey, int]:
        """The models that the owner of ``row`` counts for, and their places."""
        known = self._known[row]
        while len(known) < MOST_MODELS:
            start = (row * MOST_MODELS + len(known)) * _NAME_BYTES
            length = int.from_bytes(self._names[start : start + 2], "big")
            if not length:
                break
            name, version = json.loads(bytes(self._names[start + 2 : start + 2 + length]))
            known[name, version] = len(known)
        return known


def series_of(model: ModelKey) -> list[tuple[str, Labels]]:
    """Name and labels of a model's series, in the order of :meth:`Board.model_values`."""
    labels = model_labels(model)
    return [(name, (*labels, *rest)) for name, rest in _MODEL_PLACES]
