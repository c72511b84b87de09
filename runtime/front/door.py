"""The door: accepts connections, keeps an eye on all of them, and closes in an orderly way.

Closing (``drain``): the listeners' own queues are emptied first, since the kernel resets what nobody took when the last listener
closes; then every answer says ``connection: close``; connections that stay silent get a moment to notice and are then closed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence

from runtime.exchange import Exchange, Request, Response
from runtime.front.connection import Connection, Desk
from runtime.front.known_heads import KnownHeads
from runtime.front.limits import Buffered, HttpLimits
from runtime.front.receiving import LetsIn
from runtime.front.tls_hello import HANDSHAKE_S, begins_handshake
from runtime.front.traffic import NO_TRAFFIC, Traffic

_log = logging.getLogger("hedgerow.runtime.front")

_SWEEP_S = 0.5
# Silent connections get this long: what their caller sent before it could know of the end is still on its way.
_LINGER_S = 0.3
_ACCEPTED_AT_ONCE = 64
_SWEPT_AT_ONCE = 1000
_MAKE_ROOM = 32
# Without free descriptors accept() fails at once, again and again.
_ACCEPT_PAUSE_S = 0.2
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Handler = Callable[[Exchange], None]
Refusal = Callable[[int, Request, str], Response]
Witness = Callable[[Exchange, Response], None]


def no_witness(_exchange: Exchange, _response: Response) -> None:
    """Where nobody logs answers."""


class Door:
    """One worker's connections. Implements what connection.py calls a desk."""

    def __init__(
        self,
        limits: HttpLimits,
        handle: Handler,
        refusal: Refusal,
        *,
        witness: Witness = no_witness,
        traffic: Traffic = NO_TRAFFIC,
        tls: ssl.SSLContext | None = None,
        lets_in: LetsIn | None = None,
        most_connections: int = 16_384,
    ) -> None:
        self.limits, self.handle, self.refusal, self.sent = limits, handle, refusal, witness
        self.traffic, self.lets_in = traffic, lets_in
        self.buffered = Buffered(limits.buffered_bytes)
        self.known = KnownHeads()
        self.draining = False
        self._tls = tls
        self._most_connections = most_connections
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._sides: dict[socket.socket, _SideDesk] = {}
        self._connections: set[Connection] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        # Of those that arrive, callers on a TLS port that have sent nothing yet.
        self._silent: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept. The sockets stay the caller's."""
        for listener in listeners:
            listener.setblocking(False)
            self._listeners.append(listener)
            self._loop.add_reader(listener.fileno(), self._accept, listener)
        self._sweep()

    def open_side(self, listener: socket.socket, handle: Handler) -> None:
        """Accept here too; what comes in this way goes to ``handle``."""
        self._sides[listener] = _SideDesk(self, handle)
        listener.setblocking(False)
        self._listeners.append(listener)
        self._loop.add_reader(listener.fileno(), self._accept, listener)

    @property
    def connections(self) -> int:
        return len(self._connections)

    # What connections call --------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.traffic.opened.add(1)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    # Accepting --------------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if not self._accept_one(listener):
                return

    def _accept_one(self, listener: socket.socket) -> bool:
        try:
            caller, _ = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:
            # This caller was gone before it was taken; the next may be there.
            return True
        except OSError as problem:
            if problem.errno in _NO_ROOM:
                self._pause(listener, problem)
            return False
        caller.setblocking(False)
        if caller.family in (socket.AF_INET, socket.AF_INET6):
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._welcome(caller, self._sides.get(listener, self)))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
        return True

    async def _welcome(self, caller: socket.socket, desk: Desk) -> None:
        if len(self._connections) + len(self._silent) >= self._most_connections and not self._make_room():
            caller.close()
            return
        try:
            if self._tls is None:
                await self._loop.connect_accepted_socket(lambda: Connection(desk), caller)
            elif await self._begins_handshake(caller):
                await self._loop.connect_accepted_socket(
                    lambda: Connection(desk), caller, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_S
                )
        # A caller that stays silent, or leaves during its handshake.
        except (OSError, ssl.SSLError, asyncio.CancelledError) as problem:
            _log.debug("a connection was not made: %s", problem)
            caller.close()

    async def _begins_handshake(self, caller: socket.socket) -> bool:
        task = asyncio.current_task()
        if task is None:
            return False
        self._silent.add(task)
        try:
            return await begins_handshake(self._loop, caller)
        finally:
            self._silent.discard(task)

    def _pause(self, listener: socket.socket, problem: OSError) -> None:
        _log.warning("no connection can be accepted now: %s", problem.strerror)
        self._make_room()
        self._loop.remove_reader(listener.fileno())

        def go_on() -> None:
            if listener in self._listeners:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

        self._loop.call_later(_ACCEPT_PAUSE_S, go_on)

    # Time -------------------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        # First the next round: whatever goes wrong in this one, time-outs go on.
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        self._sweep_some(list(self._connections))
        if self.buffered.held > self.buffered.most:
            self._cut_slowest()

    def _sweep_some(self, connections: list[Connection]) -> None:
        """Ten thousand at once would take the loop's time from those who wait for an answer."""
        now_s = self._loop.time()
        for connection in connections[:_SWEPT_AT_ONCE]:
            connection.sweep(now_s)
        if len(connections) > _SWEPT_AT_ONCE:
            self._loop.call_later(0.001, self._sweep_some, connections[_SWEPT_AT_ONCE:])

    def _cut_slowest(self) -> None:
        """Callers that do not take their answers hold the memory that others need: who has waited longest goes first."""
        sending = [connection for connection in self._connections if connection.state == "sending"]
        for connection in sorted(sending, key=lambda one: one.since):
            if self.buffered.held <= self.buffered.most:
                return
            connection.abort()

    def _make_room(self) -> bool:
        """Close the connections that were silent for longest. False when none is."""
        silent = [connection for connection in self._connections if connection.state in ("idle", "lingering")]
        silent.sort(key=lambda one: one.since)
        for connection in silent[:_MAKE_ROOM]:
            connection.abort()
        return bool(silent)

    # The end ----------------------------------------------------------------------------------------------------------

    def stop_accepting(self, *, take_waiting: bool = True) -> None:
        """Close the listeners; with ``take_waiting`` after taking every connection that the kernel already made."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            while take_waiting and self._accept_one(listener):
                pass
            listener.close()
        self._listeners.clear()

    async def drain(self, patience_s: float) -> bool:
        """Answer what was taken, then close everything. False when the patience ran out first."""
        self.draining = True
        began = self._loop.time()
        until = began + patience_s
        while (self._connections or self._arriving) and self._loop.time() < until:
            if self._loop.time() >= began + _LINGER_S:
                for task in self._silent:
                    task.cancel()
            for connection in list(self._connections):
                silent_since = max(connection.since, began)
                if connection.state in ("idle", "lingering") and self._loop.time() >= silent_since + _LINGER_S:
                    connection.close()
            await asyncio.sleep(0.01)
        clean = not self._connections
        for connection in list(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return clean


class _SideDesk:
    """The door's desk with another handler: what a second port leads to."""

    def __init__(self, door: Door, handle: Handler) -> None:
        self._door, self.handle = door, handle
        self.limits, self.traffic, self.buffered, self.known = door.limits, door.traffic, door.buffered, door.known
        self.lets_in: LetsIn | None = None
        self.opened, self.closed = door.opened, door.closed
        self.refusal, self.sent = door.refusal, door.sent

    @property
    def draining(self) -> bool:
        return self._door.draining
