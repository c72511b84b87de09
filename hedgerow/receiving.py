"""Callers that are still sending their request: one that does not finish in time is read no further, so that it keeps no thread.

While a thread waits for bytes nothing else tells it to stop; closing the connection's reading half from outside does.
"""

from __future__ import annotations

import socket
from contextlib import suppress

# When every thread waits for a caller, those that took longer than this make way for health checks and quick callers.
CROWDED_S = 1.0


class Receiving:
    """Connections by when their request began. ``begin`` and ``done`` come from any thread, ``cut_late`` from one."""

    def __init__(self, limit_s: float, threads: int) -> None:
        self._limit_s, self._threads = limit_s, threads
        self._since: dict[socket.socket, float] = {}

    def begin(self, connection: socket.socket, now_s: float) -> None:
        """A thread waits for this connection's request from now on."""
        self._since[connection] = now_s

    def done(self, connection: socket.socket | None) -> None:
        """It waits no longer: the request is whole, or the connection is given up."""
        if connection is not None:
            self._since.pop(connection, None)

    def cut_late(self, now_s: float) -> int:
        """End the waiting of those that are late; returns how many. Their threads read the end of the request instead."""
        limit_s = self._limit_s if len(self._since) < self._threads else min(CROWDED_S, self._limit_s)
        late = [connection for connection, since in list(self._since.items()) if now_s - since > limit_s]
        cut = [connection for connection in late if self._since.pop(connection, None) is not None]
        for connection in cut:
            with suppress(OSError):  # gone by itself
                connection.shutdown(socket.SHUT_RD)
        return len(cut)
