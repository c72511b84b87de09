"""The metrics page: read back by the official parser, right over several workers, restarts and late models."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from time import process_time

from prometheus_client.parser import text_string_to_metric_families

from runtime.observing.metric_families import BUCKETS_S
from runtime.observing.metrics import MOST_MODELS, OTHERS, Board
from runtime.observing.metrics_page import MetricsPage

MODELS = [("iris", "1"), ('odd"name\\\n', "2")]


@dataclass
class Asker:
    started_at: float = 10.0


@dataclass
class Run:
    rows: int = 1
    counted: bool = False
    started_at: float = 10.005
    finished_at: float = 10.015


@dataclass
class Job:
    """One request's share of a run."""

    rows: int = 1
    asked_at: float = 10.001
    read_s: float = 0.0
    error: BaseException | None = None
    caller: Asker = field(default_factory=Asker)
    run: Run = field(default_factory=Run)


@dataclass
class Call:
    """One request that a script answered."""

    asked_at: float = 10.001
    started_at: float = 10.005
    finished_at: float = 10.015


def of_model(name: str, version: str, **more: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"model": name, "version": version, **more}.items()))


def samples(board: Board) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(board.page())
        for sample in family.samples
    }


def test_every_series_is_told_from_the_start_and_odd_labels_survive() -> None:
    found = samples(Board(MODELS, rows=2))
    # This parser adds `_total` to every counter's name; Prometheus itself keeps Triton's names.
    assert found["nv_inference_count_total", (("model", 'odd"name\\\n'), ("version", "2"))] == 0
    assert found["hedgerow_requests_total", (("route", "score"), ("status", "503"))] == 0


def test_a_histogram_adds_up() -> None:
    board = Board(MODELS, rows=1)
    infer = board.route("infer")
    for seconds in (0.0001, BUCKETS_S[0], 0.2, 1000.0):
        infer.answered(200, seconds)
    found = samples(board)
    route = ("route", "infer")
    assert found["hedgerow_request_seconds_bucket", (("le", "0.0005"), route)] == 2
    assert found["hedgerow_request_seconds_bucket", (("le", "0.25"), route)] == 3
    assert found["hedgerow_request_seconds_bucket", (("le", "+Inf"), route)] == 4
    assert found["hedgerow_request_seconds_count", (route,)] == 4
    assert abs(found["hedgerow_request_seconds_sum", (route,)] - 1000.2006) < 1e-6
    assert found["hedgerow_request_seconds_count", (("route", "score"),)] == 0


def test_a_status_nobody_listed_is_counted_as_other() -> None:
    board = Board([], rows=1)
    board.route("score").answered(418, 0.1)
    assert samples(board)["hedgerow_requests_total", (("route", "score"), ("status", "other"))] == 1


def test_numbers_of_forked_workers_add_up_and_outlive_them() -> None:
    board = Board(MODELS, rows=3)
    for row in (0, 1):
        child = os.fork()
        if child == 0:
            board.take_row(row)
            board.model(("iris", "1")).ran([Job(rows=5)], 10.1)
            board.add("hedgerow_workers_ready")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert board.total("nv_inference_count", (("model", "iris"), ("version", "1"))) == 10
    assert board.total("hedgerow_workers_ready") == 2
    board.forget_worker(0)
    assert board.total("hedgerow_workers_ready") == 1, "a dead worker is not ready"
    board.take_row(0)
    board.model(("iris", "1")).ran([Job()], 10.1)
    assert board.total("nv_inference_exec_count", (("model", "iris"), ("version", "1"))) == 3, "counters never go back"


def test_a_row_is_given_to_one_worker_only() -> None:
    board = Board([], rows=3)
    assert [board.free_row([]), board.free_row([0]), board.free_row([0, 2]), board.free_row([1, 0])] == [0, 1, 1, 2]


def test_threads_of_one_worker_lose_no_count() -> None:
    board = Board([], rows=1)

    def count() -> None:
        for _ in range(2000):
            board.add("hedgerow_scored_rows_total")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert board.total("hedgerow_scored_rows_total") == 8000


def test_what_a_request_took_is_told_in_tritons_parts() -> None:
    board = Board(MODELS, rows=1)
    # Received at 10.000, parsed by 10.001, taken at 10.005 after one millisecond of reading, done at 10.015, answered at 10.016.
    board.model(("iris", "1")).ran([Job(rows=3, read_s=0.001)], 10.016)
    found = samples(board)
    iris = of_model("iris", "1")
    parts = {
        name: found[f"nv_inference_{name}_duration_us_total", iris]
        for name in ("request", "queue", "compute_input", "compute_infer", "compute_output")
    }
    expected = {"request": 16_000, "queue": 3_000, "compute_input": 2_000, "compute_infer": 10_000, "compute_output": 1_000}
    assert {name: round(value) for name, value in parts.items()} == expected
    assert found["nv_inference_count_total", iris] == 3
    assert found["hedgerow_scored_rows_total", ()] == 3


def test_requests_that_shared_a_run_count_it_once_with_all_its_rows() -> None:
    board = Board(MODELS, rows=1)
    counters = board.model(("iris", "1"))
    run = Run(rows=5)
    counters.ran([Job(rows=2, run=run), Job(rows=3, run=run)], 10.1)
    found = samples(board)
    iris = of_model("iris", "1")
    assert found["nv_inference_request_success_total", iris] == 2
    assert found["nv_inference_exec_count_total", iris] == 1
    assert found["hedgerow_batch_rows_bucket", of_model("iris", "1", le="4")] == 0
    assert found["hedgerow_batch_rows_bucket", of_model("iris", "1", le="8")] == 1
    assert found["hedgerow_batch_rows_sum", iris] == 5


def test_mlservers_names_say_the_same() -> None:
    board = Board(MODELS, rows=2)
    counters = board.model(("iris", "1"))
    counters.ran([Job()], 10.5)
    counters.failed("BACKEND")
    counters.failed("REJECTED")
    found = samples(board)
    iris = of_model("iris", "1")
    assert found["model_infer_request_success_total", iris] == 1
    assert found["model_infer_request_failure_total", iris] == 2
    assert found["model_infer_request_duration_count", iris] == 1
    assert abs(found["model_infer_request_duration_sum", iris] - 0.5) < 1e-9


def test_a_model_that_comes_after_the_fork_is_counted_and_seen_by_the_others() -> None:
    board = Board(MODELS, rows=3)
    for row, late in ((0, ["b", "a"]), (1, ["a"])):
        child = os.fork()
        if child == 0:
            board.take_row(row)
            for name in late:
                # Each worker may load them in an order of its own.
                board.model((name, "7")).ran([Job(rows=2)], 10.1)
            board.model(("a", "7")).pending(4)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    found = samples(board)
    assert found["nv_inference_count_total", of_model("a", "7")] == 4
    assert found["nv_inference_count_total", of_model("b", "7")] == 2
    assert found["nv_inference_pending_request_count", of_model("a", "7")] == 8
    board.forget_worker(1)
    assert samples(board)["nv_inference_pending_request_count", of_model("a", "7")] == 4, "a dead worker has nobody waiting"
    board.take_row(0)
    board.model(("a", "7")).ran([Job()], 10.1)
    assert board.total("nv_inference_count", (("model", "a"), ("version", "7"))) == 5, "its place outlives the worker"


def test_more_models_than_there_are_places_for_are_counted_together() -> None:
    board = Board([], rows=1)
    for number in range(MOST_MODELS + 5):
        board.model((f"m{number}", "1")).failed("OTHER")
    board.model(("x" * 1000, "1")).failed("OTHER")
    found = samples(board)
    assert found["nv_inference_request_failure_total", of_model("m0", "1", reason="OTHER")] == 1
    assert found["nv_inference_request_failure_total", of_model(*OTHERS, reason="OTHER")] == 7
    assert len(board.models()) == MOST_MODELS


def test_the_worst_loop_counts_not_the_sum() -> None:
    board = Board([], rows=2)
    for row, lag_s in enumerate((0.25, 0.5)):
        board.take_row(row)
        board.slot("hedgerow_event_loop_lag_seconds").set(lag_s)
    assert samples(board)["hedgerow_event_loop_lag_seconds", ()] == 0.5


def test_a_request_that_failed_after_its_run_is_no_success() -> None:
    board = Board(MODELS, rows=1)
    run = Run(rows=3)
    board.model(("iris", "1")).ran([Job(run=run, error=ValueError()), Job(rows=2, run=run)], 10.1)
    found = samples(board)
    iris = of_model("iris", "1")
    assert found["nv_inference_request_success_total", iris] == 1
    assert found["nv_inference_count_total", iris] == 2
    assert found["nv_inference_exec_count_total", iris] == 1


def test_a_script_counts_as_a_model_whose_runs_are_calls() -> None:
    board = Board(MODELS, rows=1)
    board.model(("iris", "1")).called(Call(), 10.0, 10.016)
    found = samples(board)
    iris = of_model("iris", "1")
    parts = {
        name: round(found[f"nv_inference_{name}_duration_us_total", iris])
        for name in ("request", "queue", "compute_input", "compute_infer", "compute_output")
    }
    assert parts == {"request": 16_000, "queue": 4_000, "compute_input": 1_000, "compute_infer": 10_000, "compute_output": 1_000}
    assert found["nv_inference_exec_count_total", iris] == 1


def test_a_page_after_others_is_what_a_first_page_would_be() -> None:
    """What is kept from page to page is never out of date."""
    board = Board([*MODELS, ("100%s", "{}")], rows=2)
    for model in (*MODELS, ("100%s", "{}"), ("late", "1"), MODELS[0]):
        counters = board.model(model)
        counters.failed("REJECTED")
        assert board.page() == MetricsPage().text(board)
        counters.failed("BACKEND")
        counters.pending(7)
        assert board.page() == MetricsPage().text(board)
    assert samples(board)["nv_inference_request_failure_total", of_model("100%s", "{}", reason="BACKEND")] == 1


def test_a_thousand_models_that_rest_cost_a_page_little() -> None:
    board = Board([(f"model-{number}", "1") for number in range(1000)], rows=2)
    times = []
    for page in (lambda: MetricsPage().text(board), *[board.page] * 4):
        began = process_time()
        page()
        times.append(process_time() - began)
    assert min(times[2:]) < times[0] / 2, "made anew each time"
