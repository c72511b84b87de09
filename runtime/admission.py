"""How many requests of one worker may be scored at once and how many may wait, whatever they ask for.

Counts only; the lanes keep the requests. Belongs to the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from runtime.errors import Overloaded
from runtime.models.batching import BatchLimits


class Admission:
    """``most_running`` None: as many as there are threads for. ``turn`` is called when there may be room again, ``busy`` whenever
    something begins to run or to wait: from then on somebody has to look at deadlines.
    """

    def __init__(
        self, most_running: int | None, most_waiting: int, turn: Callable[[], None], busy: Callable[[], None] = lambda: None
    ) -> None:
        self._most_running, self._most_waiting, self._busy = most_running, most_waiting, busy
        # What each lane may keep waiting however full the queue is: one slow model must not shut the others out.
        self._share = -(-most_waiting // 4)
        self.turn = turn
        self.running = self.waiting = 0

    def may_run(self) -> bool:
        return self._most_running is None or self.running < self._most_running

    def room(self, limits: BatchLimits) -> BatchLimits:
        """``limits`` for a batch that keeps within what may run."""
        if self._most_running is None:
            return limits
        return replace(limits, requests=min(limits.requests, self._most_running - self.running))

    def enqueue(self, already: int) -> None:
        """``already`` of the same lane wait. Raises Overloaded when that is enough."""
        if self.waiting >= self._most_waiting and already >= self._share:
            raise Overloaded(waited_ms=0)
        self.waiting += 1
        self._busy()

    def dequeue(self, count: int) -> None:
        self.waiting -= count

    def begin(self, count: int) -> None:
        self.running += count
        self._busy()

    def end(self, count: int) -> None:
        self.running -= count
