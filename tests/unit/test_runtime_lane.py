"""The lane: bounded, in time, one failure at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from runtime.errors import Overloaded, ScoringTimeout
from runtime.lane import Call, Lane
from tests.waiting import wait_for


def lane(*, threads: int = 1, queue: int = 4, wait_s: float = 5.0, patience_s: float = 0.0) -> Lane:
    return Lane("test", threads=threads, queue_length=queue, queue_wait_s=wait_s, patience_s=patience_s)


class Held:
    """Work that runs until it is let go."""

    def __init__(self) -> None:
        self.running, self.let_go, self.cancelled = threading.Event(), threading.Event(), threading.Event()

    def call(self) -> str:
        self.running.set()
        assert self.let_go.wait(30), "the test forgot to let go"
        return "done"

    def cancel(self) -> None:
        self.cancelled.set()


class Beside:
    """A call in a thread of its own, and what came of it."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.result: object = None
        self._function = function
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except Exception as problem:  # noqa: BLE001 - handed to the test
            self.result = problem

    def finish(self) -> object:
        self._thread.join(10)
        return self.result


def test_a_result_comes_back_with_its_times() -> None:
    ran = lane().run(Call(lambda: 42), 5.0)
    assert ran.value == 42
    assert 0 <= ran.queued_s < 5
    assert 0 <= ran.ran_s < 5


@pytest.mark.parametrize("problem", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_what_the_work_raises_is_raised_to_its_caller_alone(problem: BaseException) -> None:
    def fail() -> None:
        raise problem

    one = lane()
    with pytest.raises(type(problem)):
        one.run(Call(fail), 5.0)
    assert one.run(Call(lambda: "next"), 5.0).value == "next"


def test_work_runs_in_parallel_up_to_the_threads_and_no_further() -> None:
    one = lane(threads=2)
    works = [Held(), Held(), Held()]
    calls = [Beside(lambda work=work: one.run(work, 20.0).value) for work in works]  # type: ignore[misc]  # bound now
    wait_for(lambda: sum(work.running.is_set() for work in works) == 2, what="two of three at once")
    wait_for(lambda: one.pending == 1, what="the third waits")
    assert sum(work.running.is_set() for work in works) == 2
    for work in works:
        work.let_go.set()
    assert [call.finish() for call in calls] == ["done"] * 3


def test_work_keeps_its_order_and_its_thread() -> None:
    one = lane()
    names = {one.run(Call(lambda: threading.current_thread().name), 5.0).value for _ in range(5)}
    assert len(names) == 1, "a script's libraries keep state per thread"


def test_a_turn_that_does_not_come_is_refused_and_leaves_the_queue() -> None:
    one = lane(wait_s=0.05)
    held = Held()
    first = Beside(lambda: one.run(held, 20.0).value)
    held.running.wait(5)
    with pytest.raises(Overloaded):
        one.run(Call(lambda: 1), 20.0)
    assert one.pending == 0
    held.let_go.set()
    assert first.finish() == "done"


def test_a_full_queue_refuses_at_once() -> None:
    one = lane(queue=1, wait_s=30.0)
    held = Held()
    first = Beside(lambda: one.run(held, 20.0).value)
    held.running.wait(5)
    second = Beside(lambda: one.run(Call(lambda: "second"), 20.0).value)
    wait_for(lambda: one.pending == 1, what="the second waits")
    with pytest.raises(Overloaded, match="waited 0 ms"):
        one.run(Call(lambda: "third"), 20.0)
    held.let_go.set()
    assert (first.finish(), second.finish()) == ("done", "second")


def test_no_queue_at_all_still_lets_the_first_through() -> None:
    one = lane(queue=0)
    assert [one.run(Call(lambda: 1), 5.0).value for _ in range(3)] == [1, 1, 1]


def test_work_that_takes_too_long_is_answered_cancelled_and_makes_the_lane_stuck_until_it_ends() -> None:
    one = lane()
    held = Held()
    with pytest.raises(ScoringTimeout, match="Scoring timeout after 50 ms"):
        one.run(held, 0.05)
    assert held.cancelled.is_set()
    assert one.is_stuck
    held.let_go.set()
    wait_for(lambda: not one.is_stuck, what="the late work to end")
    assert one.run(Call(lambda: "again"), 5.0).value == "again"


def test_patience_lets_cancelled_work_end_by_itself() -> None:
    one = lane(patience_s=60.0)
    held = Held()
    with pytest.raises(ScoringTimeout):
        one.run(held, 0.01)
    assert not one.is_stuck
    held.let_go.set()
