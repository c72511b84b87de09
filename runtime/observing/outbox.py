"""From the event loop to a thread that may take its time: bounded, never blocking, what does not fit is dropped and counted.

For everything that is told about requests and must not cost them anything: log lines, traces, collected data. The loop only
appends to a deque; the thread looks a few times a second and takes all that is there.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_log = logging.getLogger("hedgerow.runtime.observing")

_PERIOD_S = 0.1
# Taken in bites, so that the thread's memory is bounded too.
_AT_ONCE = 1024


class Outbox(Generic[T]):
    """``consume(items)`` is called on the thread, with an empty list when there was nothing for a while.

    ``dropped()`` is called on the putter's thread for each item that found no room.
    """

    def __init__(
        self,
        name: str,
        consume: Callable[[list[T]], None],
        dropped: Callable[[], None],
        *,
        most_items: int,
        most_bytes: int = 64 * 1024 * 1024,
        period_s: float = _PERIOD_S,
    ) -> None:
        self._name, self._consume, self._dropped = name, consume, dropped
        self._most_items, self._most_bytes, self._period_s = most_items, most_bytes, period_s
        self._items: deque[tuple[T, int]] = deque()
        # Two counters with one writer each need no lock.
        self._bytes_in = self._bytes_out = 0
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: T, size_bytes: int = 0) -> None:
        """From one thread only."""
        if len(self._items) >= self._most_items or self._bytes_in - self._bytes_out + size_bytes > self._most_bytes:
            self._dropped()
            return
        self._bytes_in += size_bytes
        self._items.append((item, size_bytes))

    def stop(self, timeout_s: float = 2.0) -> None:
        """Hand over what is left, and end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self._empty()
        self._empty()

    def _empty(self) -> None:
        while True:
            taken = [self._items.popleft() for _ in range(min(len(self._items), _AT_ONCE))]
            try:
                self._consume([item for item, _ in taken])
                self._failing = False
            # Whatever it is, it must not end the thread; said once until it works again.
            except Exception:  # noqa: BLE001 - see above
                if not self._failing:
                    _log.exception("%s failed; what it was to tell is lost", self._name)
                self._failing = True
            self._bytes_out += sum(size_bytes for _, size_bytes in taken)
            if not self._items:
                return
