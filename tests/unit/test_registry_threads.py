"""The shares of threads that event streams and large transfers may take."""

from __future__ import annotations

import pytest

from registry.server.errors import TooManyStreams, TooManyTransfers
from registry.server.threads import LARGE_BYTES, ThreadBudget


def test_eight_threads_are_never_taken_by_streams() -> None:
    budget = ThreadBudget(24)
    taken = [budget.take_stream() for _ in range(16)]
    with pytest.raises(TooManyStreams):
        budget.take_stream()
    taken[0]()
    taken[0]()  # a second end is no second place
    budget.take_stream()
    with pytest.raises(TooManyStreams):
        budget.take_stream()


def test_four_threads_are_never_taken_by_anything_that_lasts() -> None:
    budget = ThreadBudget(24)
    for _ in range(16):
        budget.take_stream()
    transfers = [budget.take_transfer(None) for _ in range(4)]
    with pytest.raises(TooManyTransfers):
        budget.take_transfer(LARGE_BYTES)
    budget.take_transfer(LARGE_BYTES - 1)()
    transfers[0]()
    budget.take_transfer(LARGE_BYTES)


def test_transfers_crowd_out_streams_as_well() -> None:
    budget = ThreadBudget(24)
    for _ in range(20):
        budget.take_transfer(None)
    with pytest.raises(TooManyStreams):
        budget.take_stream()


def test_even_a_small_server_serves_something() -> None:
    budget = ThreadBudget(1)
    budget.take_stream()()
    budget.take_transfer(None)()
