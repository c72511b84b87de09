"""Runs counted by how many rows they took: exact where batches are small, bounded where they are not, right over workers."""

from __future__ import annotations

import os

import pytest

from runtime.observing.batch_sizes import SIZES, SizeBoard
from runtime.observing.metrics import Board
from runtime.oip.statistics import model_stats
from tests.unit.test_runtime_metrics import Job, Run


@pytest.mark.parametrize(
    ("rows", "size"),
    [(0, 0), (1, 1), (63, 63), (64, 64), (65, 128), (128, 128), (129, 256), (1000, 1024), (2**24, 2**24), (2**40, 2**24)],
)
def test_a_size_is_exact_or_the_next_power_of_two(rows: int, size: int) -> None:
    board = SizeBoard(rows=1, models=2)
    board.of(0, 1).ran(rows, 0.1, 0.2, 0.3)
    (told,) = board.told([(0, 1)])
    assert (told.rows, told.runs, told.input_s, told.infer_s, told.output_s) == (size, 1, 0.1, 0.2, 0.3)
    assert board.told([(0, 0)]) == []
    assert len(SIZES) < 100


def test_workers_add_up_and_models_stay_apart() -> None:
    board = Board([("a", "1"), ("b", "1")], rows=2)
    for row in (0, 1):
        child = os.fork()
        if child == 0:
            board.take_row(row)
            # Received at 10.000, asked for at 10.001, run from 10.005 to 10.015, answered at 10.016.
            run = Run(rows=5)
            board.model(("a", "1")).ran([Job(rows=2, run=run), Job(rows=3, run=run)], 10.016)
            board.model(("a", "1")).ran([Job()], 10.016)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    small, large = model_stats(board, ("a", "1"), 0).batch_stats
    assert (small.batch_size, small.compute_infer.count, large.batch_size, large.compute_infer.count) == (1, 2, 5, 2)
    assert [round(one.ns / 1e6) for one in (large.compute_input, large.compute_infer, large.compute_output)] == [2, 20, 2]
    assert model_stats(board, ("b", "1"), 0).batch_stats == []
    assert model_stats(board, ("none", "1"), 0).batch_stats == []
