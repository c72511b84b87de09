"""The way from the loop to a thread: in order, bounded by number and size, and not ended by what goes wrong at its end."""

from __future__ import annotations

import threading

from runtime.observing.outbox import Outbox
from tests.waiting import wait_for


def test_everything_arrives_in_order_and_the_rest_at_the_end() -> None:
    taken: list[int] = []
    outbox: Outbox[int] = Outbox("test", taken.extend, lambda: None, most_items=10_000, period_s=0.001)
    outbox.start()
    for number in range(3000):
        outbox.put(number)
    wait_for(lambda: len(taken) == 3000, what="all of them")
    outbox.put(3000)
    outbox.stop()
    assert taken == list(range(3001))


def test_what_finds_no_room_is_dropped_and_counted() -> None:
    dropped: list[int] = []
    outbox: Outbox[int] = Outbox("test", lambda _: None, lambda: dropped.append(1), most_items=3, most_bytes=100)
    for _ in range(5):
        outbox.put(1, 10)
    assert len(dropped) == 2, "by number"
    outbox = Outbox("test", lambda _: None, lambda: dropped.append(1), most_items=100, most_bytes=100)
    for _ in range(5):
        outbox.put(1, 30)
    assert len(dropped) == 4, "by size"


def test_size_counts_until_the_thread_is_done_with_it() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def consume(items: list[int]) -> None:
        if items:
            begun.set()
            assert go_on.wait(10)

    dropped: list[int] = []
    outbox: Outbox[int] = Outbox("test", consume, lambda: dropped.append(1), most_items=100, most_bytes=100, period_s=0.001)
    outbox.start()
    outbox.put(1, 90)
    assert begun.wait(10)
    outbox.put(2, 20)
    assert dropped == [1], "it is still in the thread's hands"
    go_on.set()

    def has_room() -> bool:
        before = len(dropped)
        outbox.put(3, 90)
        return len(dropped) == before

    wait_for(has_room, what="room again")
    outbox.stop()


def test_a_failure_loses_its_items_and_nothing_else() -> None:
    taken: list[int] = []

    def consume(items: list[int]) -> None:
        if 13 in items:
            raise ValueError("unlucky")
        taken.extend(items)

    outbox: Outbox[int] = Outbox("test", consume, lambda: None, most_items=100, period_s=0.001)
    outbox.start()
    outbox.put(13)
    wait_for(lambda: not outbox._items, what="the thread to take it")
    outbox.put(14)
    wait_for(lambda: taken == [14], what="the next one")
    outbox.stop()
