"""A few threads for methods, made when there is work and gone when there is none: an idle agent pays nothing."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)


class Workers:
    """At most ``threads`` jobs at a time and ``waiting`` that wait."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._name, self._threads, self._waiting_most = name, threads, waiting
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0

    @property
    def limit(self) -> int:
        """How many jobs are taken at once."""
        return self._threads + self._waiting_most

    def submit(self, job: Callable[[], None]) -> bool:
        """Run ``job`` on a thread of its own, as soon as one may; False when too many wait already."""
        with self._lock:
            if self._running >= self._threads:
                if len(self._waiting) >= self._waiting_most:
                    return False
                self._waiting.append(job)
                return True
            self._running += 1
        threading.Thread(target=self._run, args=(job,), name=self._name, daemon=True).start()
        return True

    def _run(self, job: Callable[[], None]) -> None:
        following: Callable[[], None] | None = job
        while following is not None:
            try:
                following()
            except Exception:
                log.exception("a job of %s failed", self._name)
            with self._lock:
                following = self._waiting.popleft() if self._waiting else None
                if following is None:
                    self._running -= 1
