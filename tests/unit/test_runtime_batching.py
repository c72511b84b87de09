"""Which waiting requests share a run, and how its answer is cut into theirs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from runtime.models.batching import BatchLimits, take_batch


@dataclass
class Waiting:
    number: int
    key: object
    rows: int = 1
    size_bytes: int = 8


def queue_of(*keys: object) -> deque[Waiting]:
    return deque(Waiting(number, key) for number, key in enumerate(keys))


def numbers(batch: list[Waiting] | deque[Waiting]) -> list[int]:
    return [one.number for one in batch]


def test_only_those_of_one_key_go_together_and_the_others_keep_their_places() -> None:
    waiting = queue_of("a", "b", "a", None, "a")
    assert numbers(take_batch(waiting, BatchLimits())) == [0, 2, 4]
    assert numbers(waiting) == [1, 3]


def test_a_request_without_a_key_goes_alone() -> None:
    waiting = queue_of(None, None, "a")
    assert numbers(take_batch(waiting, BatchLimits())) == [0]
    assert numbers(waiting) == [1, 2]


def test_each_limit_holds() -> None:
    assert numbers(take_batch(queue_of(*"aaaa"), BatchLimits(requests=1))) == [0]
    assert numbers(take_batch(queue_of(*"aaaa"), BatchLimits(requests=3))) == [0, 1, 2]
    assert numbers(take_batch(queue_of(*"aaaa"), BatchLimits(rows=2))) == [0, 1]
    assert numbers(take_batch(queue_of(*"aaaa"), BatchLimits(size_bytes=20))) == [0, 1]


def test_one_that_is_larger_than_every_limit_still_gets_its_turn() -> None:
    waiting = deque([Waiting(0, "a", rows=1000, size_bytes=10**9), Waiting(1, "a")])
    assert numbers(take_batch(waiting, BatchLimits())) == [0]
    assert numbers(take_batch(waiting, BatchLimits())) == [1]


def test_a_smaller_one_may_go_where_a_larger_does_not_fit() -> None:
    waiting = deque([Waiting(0, "a", rows=3), Waiting(1, "a", rows=3), Waiting(2, "a", rows=1)])
    assert numbers(take_batch(waiting, BatchLimits(rows=4))) == [0, 2]
    assert numbers(waiting) == [1]


_QUEUES = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 9), st.integers(0, 50)), min_size=1, max_size=60)


@given(_QUEUES, st.builds(BatchLimits, rows=st.integers(1, 20), size_bytes=st.integers(1, 200), requests=st.integers(1, 20)))
def test_nobody_is_lost_or_served_twice_and_no_batch_breaks_a_limit(
    asked: list[tuple[str | None, int, int]], limits: BatchLimits
) -> None:
    waiting = deque(Waiting(number, *one) for number, one in enumerate(asked))
    served: list[int] = []
    while waiting:
        first = waiting[0].number
        batch = take_batch(waiting, limits)
        served += numbers(batch)
        # Whoever has waited longest is in the next batch: nobody starves.
        assert batch[0].number == first
        assert numbers(batch) == sorted(numbers(batch))
        assert numbers(waiting) == sorted(numbers(waiting))
        if len(batch) > 1:
            assert len({one.key for one in batch}) == 1
            assert batch[0].key is not None
            assert len(batch) <= limits.requests
            assert sum(one.rows for one in batch) <= limits.rows
            assert sum(one.size_bytes for one in batch) <= limits.size_bytes
    assert sorted(served) == list(range(len(asked)))
