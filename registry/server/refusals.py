"""Counts the requests that were refused for who sent them, for ``/metrics`` and, now and then, for the log.

Never the token: a log is read by more people than a token is meant for. Addresses are logged as routes, because a query
can hold a token, too (``/login?token=…``).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter

from hedgerow.clock import Clock
from hedgerow.logs import Seldom

_LOG = logging.getLogger(__name__)


class Refusals:
    """``reason`` is the key of the error that was answered (``token_refused``, ``scope_forbids``, …)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._seldom = Seldom()

    def note(self, reason: str, method: str, route: str, remote: str) -> None:
        """One request from the address ``remote`` was refused; logged seldom."""
        with self._lock:
            self._counts[reason] += 1
        if number := self._seldom.due(self._clock.monotonic_s()):
            _LOG.warning("Refused %d requests (%s); the last from %s: %s %s", number, reason, remote, method, route)

    def counts(self) -> dict[str, int]:
        """How many of each reason since the start."""
        with self._lock:
            return dict(self._counts)
