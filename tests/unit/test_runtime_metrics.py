"""The metrics page: read back by the official parser, right over several workers and restarts."""

from __future__ import annotations

import os
import threading

from prometheus_client.parser import text_string_to_metric_families

from runtime.metrics import BUCKETS_S, Board

MODELS = [("iris", "1"), ('odd"name\\\n', "2")]


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
    for seconds in (0.0001, BUCKETS_S[0], 0.2, 1000.0):
        board.answered("infer", 200, seconds)
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
    board.answered("score", 418, 0.1)
    assert samples(board)["hedgerow_requests_total", (("route", "score"), ("status", "other"))] == 1


def test_numbers_of_forked_workers_add_up_and_outlive_them() -> None:
    board = Board(MODELS, rows=3)
    for row in (0, 1):
        child = os.fork()
        if child == 0:
            board.take_row(row)
            board.scored(("iris", "1"), 5, 0.001, 0.002)
            board.add("hedgerow_workers_ready")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert board.total("nv_inference_count", (("model", "iris"), ("version", "1"))) == 10
    assert board.total("hedgerow_workers_ready") == 2
    board.forget_worker(0)
    assert board.total("hedgerow_workers_ready") == 1, "a dead worker is not ready"
    board.take_row(0)
    board.scored(("iris", "1"), 1, 0.0, 0.0)
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
