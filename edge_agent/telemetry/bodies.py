"""How many bytes of bodies the local HTTP port keeps at once: when they are too many, further ones wait in their turn."""

from __future__ import annotations

from collections import deque

from edge_agent.telemetry.http_connection import Connection

# Large bodies that are here in part or whole, all together.
BODIES_BYTES_MAX = 16 * 1024 * 1024
# Up to this a body needs no room: there are only so many connections, and a message must not wait behind others' batches.
SMALL_BYTES = 65_536


class Bodies:
    """Used by the server's thread only."""

    def __init__(self) -> None:
        self._bytes = 0
        self._waiting: deque[tuple[Connection, int]] = deque()

    @property
    def crowded(self) -> bool:
        """True while somebody waits."""
        return bool(self._waiting)

    def waits(self, connection: Connection) -> bool:
        """True while the body of this connection has no room."""
        return any(waiting is connection for waiting, _ in self._waiting)

    def take(self, connection: Connection, size: int) -> bool:
        """Keep room for a body; False when it has to wait. Small ones always have it, and one large one."""
        if size <= SMALL_BYTES:
            return True
        if self._waiting or (self._bytes and self._bytes + size > BODIES_BYTES_MAX):
            self._waiting.append((connection, size))
            return False
        self._hold(connection, size)
        return True

    def give_back(self, connection: Connection) -> list[Connection]:
        """The body was used, or never comes; returns those that have room now."""
        self._bytes -= connection.held
        connection.held = 0
        if self._waiting:
            self._waiting = deque(waiting for waiting in self._waiting if waiting[0] is not connection)
        admitted: list[Connection] = []
        while self._waiting and (not self._bytes or self._bytes + self._waiting[0][1] <= BODIES_BYTES_MAX):
            following, size = self._waiting.popleft()
            self._hold(following, size)
            admitted.append(following)
        return admitted

    def _hold(self, connection: Connection, size: int) -> None:
        connection.held = size
        self._bytes += size
