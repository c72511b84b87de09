"""How many requests may be scored and may wait."""

from __future__ import annotations

import pytest

from runtime.admission import Admission
from runtime.errors import Overloaded
from runtime.models.batching import BatchLimits


def admission(most_running: int | None, most_waiting: int) -> Admission:
    return Admission(most_running, most_waiting, lambda: None)


def test_a_full_queue_refuses_and_has_room_again_when_one_leaves() -> None:
    places = admission(None, 2)
    places.enqueue(0)
    places.enqueue(1)
    with pytest.raises(Overloaded):
        places.enqueue(2)
    assert places.waiting == 2
    places.dequeue(1)
    places.enqueue(1)
    assert places.waiting == 2


def test_a_lane_that_fills_the_queue_does_not_shut_the_others_out() -> None:
    places = admission(None, 8)
    for already in range(8):
        places.enqueue(already)
    with pytest.raises(Overloaded):
        places.enqueue(8)
    # Another model's requests still have a quarter of the places.
    places.enqueue(0)
    places.enqueue(1)
    with pytest.raises(Overloaded):
        places.enqueue(2)


def test_a_queue_without_places_takes_nobody() -> None:
    with pytest.raises(Overloaded):
        admission(None, 0).enqueue(0)


def test_as_many_run_as_were_allowed() -> None:
    places = admission(2, 10)
    assert places.may_run()
    places.begin(1)
    assert places.room(BatchLimits()).requests == 1
    places.begin(1)
    assert not places.may_run()
    places.end(2)
    assert places.may_run()
    assert places.running == 0


def test_without_a_limit_a_batch_is_as_large_as_its_model_allows() -> None:
    limits = BatchLimits(requests=7)
    places = admission(None, 10)
    places.begin(1000)
    assert places.may_run()
    assert places.room(limits) is limits
