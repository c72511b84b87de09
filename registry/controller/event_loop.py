"""One thread waits for everything: descriptors (wake-ups, ends of processes), timers, signals. Nothing is polled."""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from hedgerow.clock import Clock

# What a callback returns is of no interest.
Callback = Callable[[], object]


@dataclass(order=True)
class Timer:
    """Fires once, unless cancelled before."""

    at_s: float
    number: int
    callback: Callback | None = field(compare=False)

    def cancel(self) -> None:
        self.callback = None


class EventLoop:
    """Calls back, one thing at a time, until :meth:`stop`. What a callback raises ends :meth:`run`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._numbers = itertools.count()
        self._stopping = False
        self._signal_ends: tuple[socket.socket, ...] = ()

    def watch(self, fd: int, callback: Callback) -> None:
        """Call back whenever ``fd`` is readable, until :meth:`unwatch`."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def watch_end(self, exit_fd: int, callback: Callback) -> None:
        """Call back once when ``exit_fd`` (a pidfd, taken over) becomes readable."""

        def ended() -> None:
            self.unwatch(exit_fd)
            os.close(exit_fd)
            callback()

        self.watch(exit_fd, ended)

    def after(self, delay_s: float, callback: Callback) -> Timer:
        """Call back once, ``delay_s`` seconds from now."""
        timer = Timer(self._clock.monotonic_s() + delay_s, next(self._numbers), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def on_signals(self, numbers: tuple[signal.Signals, ...], callback: Callback) -> None:
        """Call back after one of these signals; only from the main thread."""
        read_end, write_end = self._signal_ends = socket.socketpair()
        for end in self._signal_ends:
            end.setblocking(False)
        signal.set_wakeup_fd(write_end.fileno())
        for number in numbers:
            signal.signal(number, lambda _number, _frame: None)

        def arrived() -> None:
            read_end.recv(64)
            callback()

        self.watch(read_end.fileno(), arrived)

    def run(self) -> None:
        """Until :meth:`stop` was called."""
        while not self._stopping:
            for key, _ in self._selector.select(self._timeout_s()):
                # An earlier callback of this round may have taken this one away.
                if key.fd in self._selector.get_map():
                    key.data()
            self._fire_timers()

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        if self._signal_ends:
            signal.set_wakeup_fd(-1)
            for end in self._signal_ends:
                end.close()
        self._selector.close()

    def _timeout_s(self) -> float | None:
        if self._stopping:
            return 0.0
        return max(0.0, self._timers[0].at_s - self._clock.monotonic_s()) if self._timers else None

    def _fire_timers(self) -> None:
        now_s = self._clock.monotonic_s()
        while self._timers and self._timers[0].at_s <= now_s and not self._stopping:
            timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()
