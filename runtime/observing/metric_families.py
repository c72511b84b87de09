"""Which numbers there are: every metric's name, kind, help and series. Pure; metrics.py gives them places in shared memory.

Names are ours (``hedgerow_*``), Triton's ``nv_inference_*`` (its docs/user_guide/metrics.md) and MLServer's ``model_infer_*``: so
dashboards made for either work. MLServer's cost nothing: they are told from Triton's when the page is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Labels = tuple[tuple[str, str], ...]
# Name and version.
ModelKey = tuple[str, str]
Kind = Literal["counter", "gauge", "histogram"]
Failure = Literal["REJECTED", "CANCELED", "BACKEND", "OTHER"]

ROUTES = ("score", "infer")
STATUSES = ("200", "400", "401", "404", "405", "408", "413", "415", "431", "500", "502", "503", "504", "other")
FAILURES: tuple[Failure, ...] = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PROCESSES = ("worker", "script")
DROPS = ("queue", "size", "disk")


def bucket_labels(edges: Iterable[float]) -> list[str]:
    """The ``le`` values of a histogram with these upper edges."""
    return [*(format(edge, "g") for edge in edges), "+Inf"]


@dataclass(frozen=True)
class Family:
    """One metric: its help and its series, each a label set.

    ``per_worker`` values belong to a living worker only. ``worst``: over several workers the largest value counts, not the sum.
    """

    name: str
    kind: Kind
    help: str
    labels: Sequence[Labels] = ((),)
    per_worker: bool = False
    worst: bool = False


def _each(label: str, values: Iterable[str]) -> list[Labels]:
    return [((label, value),) for value in values]


def _histogram(sets: Iterable[Labels], edges: Iterable[float]) -> list[Labels]:
    parts = [*(("le", edge) for edge in bucket_labels(edges)), ("", "sum")]
    return [(*labels, part) for labels in sets for part in parts]


_ANSWERS = [(("route", route), ("status", status)) for route in ROUTES for status in STATUSES]

SERVER_FAMILIES = (
    Family("hedgerow_requests_total", "counter", "Answered scoring requests", _ANSWERS),
    Family(
        "hedgerow_request_seconds",
        "histogram",
        "Time from a whole request to its answer",
        _histogram(_each("route", ROUTES), BUCKETS_S),
    ),
    Family("hedgerow_scored_rows_total", "counter", "Rows scored"),
    Family("hedgerow_in_flight", "gauge", "Scoring requests being answered now", per_worker=True),
    Family("hedgerow_queue_depth", "gauge", "Scoring requests that wait for their turn", per_worker=True),
    Family("hedgerow_unauthorized_total", "counter", "Requests refused for want of a key"),
    Family("hedgerow_connections", "gauge", "Connections open now", per_worker=True),
    Family("hedgerow_connections_total", "counter", "Connections made"),
    Family("hedgerow_received_bytes_total", "counter", "Bytes that callers sent"),
    Family("hedgerow_sent_bytes_total", "counter", "Bytes sent to callers"),
    Family(
        "hedgerow_event_loop_lag_seconds",
        "gauge",
        "Longest time that a worker's event loop stood still, in the last half minute",
        per_worker=True,
        worst=True,
    ),
    Family("hedgerow_workers_ready", "gauge", "Workers that answer scoring requests", per_worker=True),
    Family("hedgerow_workers_started_total", "counter", "Workers started, replacements included"),
    Family(
        "hedgerow_script_processes",
        "gauge",
        "Processes of the scoring script by what they do",
        _each("state", ("ready", "standby")),
        per_worker=True,
    ),
    Family("hedgerow_script_process_restarts_total", "counter", "Processes of the scoring script that were replaced"),
    Family(
        "hedgerow_resident_memory_bytes",
        "gauge",
        "Memory of the processes, pages shared between them counted in each",
        _each("process", PROCESSES),
        per_worker=True,
    ),
    Family("hedgerow_cpu_seconds_total", "counter", "Time on a processor", _each("process", PROCESSES)),
    Family("hedgerow_telemetry_sent_total", "counter", "Telemetry messages stored by the receiver"),
    Family("hedgerow_telemetry_failed_total", "counter", "Attempts to send telemetry that failed"),
    Family("hedgerow_telemetry_dropped_total", "counter", "Telemetry messages dropped because the queue was full"),
    Family("hedgerow_collected_records_total", "counter", "Sampled requests written to the collection folder"),
    Family(
        "hedgerow_collected_dropped_total",
        "counter",
        "Sampled requests that were not written, by what was too small",
        _each("reason", DROPS),
    ),
    Family("hedgerow_access_log_dropped_total", "counter", "Lines of the access log dropped because nobody took them"),
    Family("hedgerow_spans_exported_total", "counter", "Traced requests that the OpenTelemetry receiver took"),
    Family("hedgerow_spans_dropped_total", "counter", "Traced requests dropped: queue full or receiver not there"),
)

# The series of each model; their labels stand behind model and version. ModelCounters counts by these places.
MODEL_FAMILIES = (
    Family("nv_inference_request_success", "counter", "Number of successful inference requests, all batch sizes"),
    Family("nv_inference_request_failure", "counter", "Number of failed inference requests", _each("reason", FAILURES)),
    Family("nv_inference_count", "counter", "Number of inferences performed (rows)"),
    Family("nv_inference_exec_count", "counter", "Number of model executions performed"),
    Family("nv_inference_request_duration_us", "counter", "Cumulative inference request duration in microseconds"),
    Family("nv_inference_queue_duration_us", "counter", "Cumulative inference queuing duration in microseconds"),
    Family("nv_inference_compute_input_duration_us", "counter", "Cumulative time reading inputs in microseconds"),
    Family("nv_inference_compute_infer_duration_us", "counter", "Cumulative time in the model in microseconds"),
    Family(
        "nv_inference_compute_output_duration_us", "counter", "Cumulative time from the model's end to the answer in microseconds"
    ),
    Family("nv_inference_pending_request_count", "gauge", "Requests that wait for the model now", per_worker=True),
    Family("hedgerow_batch_rows", "histogram", "Rows that shared one run of the model", _histogram([()], BATCH_BUCKETS)),
)


@dataclass(frozen=True)
class Derived:
    """A metric of MLServer's, as a sum over series of ours times ``scale``; ``suffix`` tells the parts of a summary apart."""

    name: str
    kind: str
    help: str
    parts: tuple[tuple[str, str, float], ...]


# (suffix, our family, scale)
DERIVED_FAMILIES = (
    Derived(
        "model_infer_request_success_total",
        "counter",
        "Model infer request success count (MLServer's name)",
        (("", "nv_inference_request_success", 1.0),),
    ),
    Derived(
        "model_infer_request_failure_total",
        "counter",
        "Model infer request failure count (MLServer's name)",
        (("", "nv_inference_request_failure", 1.0),),
    ),
    Derived(
        "model_infer_request_duration",
        "summary",
        "Model infer request duration in seconds (MLServer's name)",
        (("_sum", "nv_inference_request_duration_us", 1e-6), ("_count", "nv_inference_request_success", 1.0)),
    ),
)


def model_labels(model: ModelKey) -> Labels:
    name, version = model
    return (("model", name), ("version", version))
