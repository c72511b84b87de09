"""Shares out the server's threads, so that event streams and large transfers cannot starve short calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import cast

from flask import current_app

from registry.server.errors import TooManyStreams, TooManyTransfers

EXTENSION = "hedgerow.threads"
# Never taken by event streams / by anything that lasts.
_BESIDE_STREAMS, _BESIDE_LONG = 8, 4
LARGE_BYTES = 4 * 1024 * 1024


class ThreadBudget:
    """Counts long requests. ``take_*`` give back a function that ends the request's share; calling it twice is fine."""

    def __init__(self, threads: int) -> None:
        self._most_streams = max(1, threads - _BESIDE_STREAMS)
        self._most_long = max(2, threads - _BESIDE_LONG)
        self._lock = threading.Lock()
        self._streams = self._transfers = 0

    def take_stream(self) -> Callable[[], None]:
        """Raises TooManyStreams."""
        with self._lock:
            if self._streams >= self._most_streams or self._streams + self._transfers >= self._most_long:
                raise TooManyStreams(limit=self._streams)
            self._streams += 1
        return _Once(self._end_stream)

    def take_transfer(self, size_bytes: int | None) -> Callable[[], None]:
        """``size_bytes`` None: not known. Small ones are free. Raises TooManyTransfers."""
        if size_bytes is not None and size_bytes < LARGE_BYTES:
            return _Once(lambda: None)
        with self._lock:
            if self._streams + self._transfers >= self._most_long:
                raise TooManyTransfers(limit=self._streams + self._transfers)
            self._transfers += 1
        return _Once(self._end_transfer)

    def _end_stream(self) -> None:
        with self._lock:
            self._streams -= 1

    def _end_transfer(self) -> None:
        with self._lock:
            self._transfers -= 1


class _Once:
    def __init__(self, action: Callable[[], None]) -> None:
        self._actions = [action]

    def __call__(self) -> None:
        while self._actions:
            self._actions.pop()()


def budget() -> ThreadBudget:
    """That of the running app."""
    return cast(ThreadBudget, current_app.extensions[EXTENSION])
