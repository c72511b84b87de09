"""Where messages wait between the broker's thread and the hub's loop: bounded, so that a slow database costs no memory.

What does not fit is dropped and counted. Nothing is lost by that: a device sends again what was not acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque

from registry.hub.link import Uplink

MAX_WAITING_BYTES = 16 * 1024 * 1024
MAX_WAITING = 20_000
_OVERHEAD_BYTES = 200


class Inbox:
    """One writer thread, one reader thread; ``fileno`` is readable while something waits."""

    def __init__(self, max_bytes: int = MAX_WAITING_BYTES, max_count: int = MAX_WAITING) -> None:
        self._max_bytes, self._max_count = max_bytes, max_count
        self._lock = threading.Lock()
        self._waiting: deque[Uplink] = deque()
        self._bytes = 0
        self._dropped = 0
        self._connected = False
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, uplink: Uplink) -> None:
        """Never blocks: the broker's thread has its own deadlines."""
        size = len(uplink.payload) + _OVERHEAD_BYTES
        with self._lock:
            if self._bytes + size > self._max_bytes or len(self._waiting) >= self._max_count:
                self._dropped += 1
                return
            self._waiting.append(uplink)
            self._bytes += size
            os.eventfd_write(self._event, 1)

    def note_connected(self) -> None:
        """The broker is there (again): retained messages may have to be published anew."""
        with self._lock:
            self._connected = True
            os.eventfd_write(self._event, 1)

    def take(self, max_count: int, max_bytes: int) -> list[Uplink]:
        """What waits, oldest first; at least one message if there is any, whatever its size."""
        taken: list[Uplink] = []
        size = 0
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._event)
            while self._waiting and len(taken) < max_count and (not taken or size < max_bytes):
                uplink = self._waiting.popleft()
                size += len(uplink.payload) + _OVERHEAD_BYTES
                taken.append(uplink)
            self._bytes -= size
            if self._waiting or self._connected:
                os.eventfd_write(self._event, 1)
        return taken

    def take_connected(self) -> bool:
        """Whether the broker came (back) since the last call."""
        with self._lock:
            connected, self._connected = self._connected, False
            return connected

    def take_dropped(self) -> int:
        """How many messages did not fit since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            return dropped

    def fileno(self) -> int:
        return self._event

    def close(self) -> None:
        os.close(self._event)
