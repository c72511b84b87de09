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
from runtime.front.connection import Connection
from runtime.front.limits import HttpLimits

_log = logging.getLogger("hedgerow.runtime.http")

_SWEEP_S = 0.5
# Silent connections get this long: what their caller sent before it could know of the end is still on its way.
_LINGER_S = 0.3
_ACCEPTED_AT_ONCE = 64
# Without free descriptors accept() fails at once, again and again.
_ACCEPT_PAUSE_S = 0.2
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Handler = Callable[[Exchange], None]
Refusal = Callable[[int, Request, str], Response]
Witness = Callable[[Exchange, Response], None]


def no_witness(_exchange: Exchange, _response: Response) -> None:
    """Where nobody logs answers."""


class Door:
    """One worker's connections. Implements what front/connection.py calls a desk."""

    def __init__(
        self,
        limits: HttpLimits,
        handle: Handler,
        refusal: Refusal,
        *,
        witness: Witness = no_witness,
        tls: ssl.SSLContext | None = None,
        most_connections: int = 16_384,
    ) -> None:
        self.limits, self.handle, self.refusal, self.sent = limits, handle, refusal, witness
        self.draining = False
        self._tls = tls
        self._most_connections = most_connections
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept. The sockets stay the caller's."""
        for listener in listeners:
            listener.setblocking(False)
            self._listeners.append(listener)
            self._loop.add_reader(listener.fileno(), self._accept, listener)
        self._sweep()

    @property
    def connections(self) -> int:
        return len(self._connections)

    # What connections call --------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

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
        task = self._loop.create_task(self._welcome(caller))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
        return True

    async def _welcome(self, caller: socket.socket) -> None:
        if len(self._connections) >= self._most_connections:
            caller.close()
            return
        try:
            await self._loop.connect_accepted_socket(lambda: Connection(self), caller, ssl=self._tls)
        # A caller that speaks no TLS, or leaves during its handshake.
        except (OSError, ssl.SSLError) as problem:
            _log.debug("a connection was not made: %s", problem)
            caller.close()

    def _pause(self, listener: socket.socket, problem: OSError) -> None:
        _log.warning("no connection can be accepted now: %s", problem.strerror)
        self._loop.remove_reader(listener.fileno())

        def go_on() -> None:
            if listener in self._listeners:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

        self._loop.call_later(_ACCEPT_PAUSE_S, go_on)

    # Time -------------------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        now_s = self._loop.time()
        for connection in list(self._connections):
            connection.sweep(now_s)
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

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
        until = self._loop.time() + patience_s
        linger_until = self._loop.time() + _LINGER_S
        while (self._connections or self._arriving) and self._loop.time() < until:
            for connection in list(self._connections):
                if connection.state == "idle" and self._loop.time() >= linger_until:
                    connection.close()
            await asyncio.sleep(0.01)
        clean = not self._connections
        for connection in list(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return clean
