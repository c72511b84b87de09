"""Triton's statistics extension: what each version of a model did since the server started, out of the board's counters.

Counters are the server's, whichever of its processes counted. ``last_inference`` is this process's; durations of failed
requests are not kept, they are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from runtime.observing.metric_families import FAILURES
from runtime.observing.metrics import Board, ModelKey, series_of


class Duration(msgspec.Struct, frozen=True):
    """How often, and how long altogether."""

    count: int = 0
    ns: int = 0


class InferStats(msgspec.Struct, frozen=True):
    """Triton's ``inference_stats``. Answers are never cached."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class BatchStats(msgspec.Struct, frozen=True):
    """Triton's ``batch_stats``: the runs of one size. From 65 rows on it is the next power of two."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStats(msgspec.Struct, frozen=True):
    """Triton's ``model_stats`` of one version."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStats
    response_stats: dict[str, object] = {}
    batch_stats: Sequence[BatchStats] = ()
    memory_usage: Sequence[object] = ()


def model_stats(board: Board, model: ModelKey, last_inference_ms: int) -> ModelStats:
    """``last_inference_ms``: milliseconds since 1970; 0 for never."""
    numbers = dict(zip(_names(model), board.model_values(model), strict=True))
    success = int(numbers["nv_inference_request_success", ""])
    failed = sum(int(numbers["nv_inference_request_failure", reason]) for reason in FAILURES)
    return ModelStats(
        name=model[0],
        version=model[1],
        last_inference=last_inference_ms,
        inference_count=int(numbers["nv_inference_count", ""]),
        execution_count=int(numbers["nv_inference_exec_count", ""]),
        inference_stats=InferStats(
            success=_duration(success, numbers, "nv_inference_request_duration_us"),
            fail=Duration(failed),
            queue=_duration(success, numbers, "nv_inference_queue_duration_us"),
            compute_input=_duration(success, numbers, "nv_inference_compute_input_duration_us"),
            compute_infer=_duration(success, numbers, "nv_inference_compute_infer_duration_us"),
            compute_output=_duration(success, numbers, "nv_inference_compute_output_duration_us"),
        ),
        batch_stats=[
            BatchStats(
                one.rows, _seconds(one.runs, one.input_s), _seconds(one.runs, one.infer_s), _seconds(one.runs, one.output_s)
            )
            for one in board.batch_sizes(model)
        ],
    )


def _duration(count: int, numbers: Mapping[tuple[str, str], float], name: str) -> Duration:
    return Duration(count, round(numbers[name, ""] * 1000))


def _seconds(count: int, seconds: float) -> Duration:
    return Duration(count, round(seconds * 1e9))


def _names(model: ModelKey) -> list[tuple[str, str]]:
    """Of each of a model's series its name, and its own label where it has one."""
    return [(name, labels[2][1] if len(labels) > 2 else "") for name, labels in series_of(model)]
