"""The one loop: timers in order, descriptors when readable, callbacks that take each other away, signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from hedgerow.clock import SystemClock
from registry.controller.event_loop import EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with closing(EventLoop(SystemClock())) as made:
        yield made


def test_timers_fire_once_in_order_unless_cancelled(loop: EventLoop) -> None:
    seen: list[str] = []
    loop.after(0.02, lambda: seen.append("second"))
    loop.after(0.0, lambda: seen.append("first"))
    loop.after(0.01, lambda: seen.append("never")).cancel()
    loop.after(0.03, loop.stop)
    loop.run()
    assert seen == ["first", "second"]


def test_a_timer_may_set_another(loop: EventLoop) -> None:
    loop.after(0.0, lambda: loop.after(0.0, loop.stop))
    loop.run()


def test_descriptors_call_back_until_they_are_unwatched(loop: EventLoop) -> None:
    read_end, write_end = os.pipe()
    seen: list[bytes] = []

    def readable() -> None:
        seen.append(os.read(read_end, 1))
        if len(seen) == 2:
            loop.unwatch(read_end)
            loop.after(0.02, loop.stop)

    loop.watch(read_end, readable)
    os.write(write_end, b"abc")
    loop.run()
    assert seen == [b"a", b"b"]
    os.close(read_end)
    os.close(write_end)


def test_one_callback_may_take_another_away(loop: EventLoop) -> None:
    ends = [os.pipe() for _ in range(2)]
    seen: list[int] = []

    def readable(number: int) -> None:
        seen.append(number)
        loop.unwatch(ends[1 - number][0])
        loop.stop()

    for number, (read_end, write_end) in enumerate(ends):
        loop.watch(read_end, lambda number=number: readable(number))  # type: ignore[misc]  # bound in the loop
        os.write(write_end, b"x")
    loop.run()
    assert len(seen) == 1
    for pair in ends:
        for end in pair:
            os.close(end)


def test_the_end_of_a_process_is_told_once(loop: EventLoop) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    told: list[str] = []

    def ended() -> None:
        told.append("ended")
        loop.after(0.02, loop.stop)

    loop.watch_end(os.pidfd_open(pid), ended)
    loop.run()
    assert told == ["ended"]
    os.waitpid(pid, 0)


def test_a_signal_ends_the_waiting(loop: EventLoop) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    loop.on_signals((signal.SIGUSR1,), loop.stop)
    try:
        loop.after(0.0, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        loop.run()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_a_callback_raises_ends_the_run(loop: EventLoop) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    loop.after(0.0, fail)
    with pytest.raises(ValueError, match="on purpose"):
        loop.run()
