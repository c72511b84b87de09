"""Sockets of the local hub: one thread, one selector, every connection bounded in bytes, time and number.

What the bytes mean is decided by ``Session``, what the events mean by the ``Handler``; both are called in this thread only. A
connection that owes too much is not read until it owes less: the client then waits in its own socket, and nothing is lost.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from edge_agent.telemetry.mqtt import session as states
from edge_agent.telemetry.mqtt.codec import Connect
from edge_agent.telemetry.mqtt.session import Event, Session
from edge_agent.telemetry.mqtt.topics import Identity
from edge_agent.telemetry.ports import LOOPBACK, first_free_port
from hedgerow.clock import Clock

CONNECTIONS_MAX = 128
# Of those that have not said who they are; the oldest of them goes when one more comes.
STRANGERS_MAX = 32
# Of one connection at a time: no more than is handled before the others have to wait noticeably.
READ_BYTES = 64 * 1024
# What one connection, and all together, may have waiting for a commit.
PENDING_BYTES, ALL_PENDING_BYTES = 2 * 1024 * 1024, 8 * 1024 * 1024
OUTPUT_BYTES = 256 * 1024
KERNEL_BYTES = 128 * 1024
OUTPUT_STUCK_S = 30.0
LINGER_S = 1.0
TICK_S = 0.5
ACCEPT_AGAIN_S = 0.5
log = logging.getLogger(__name__)


class Handler(Protocol):
    """What the server needs of the local hub; called in the server's thread."""

    def admit(self, connection: Connection, packet: Connect) -> int:
        """0 when the client is let in (and ``connection.me`` was set), else MQTT 5's reason code."""

    def may_read(self, connection: Connection, pattern: str) -> int:
        """0 when the client may subscribe to this filter, else MQTT 5's reason code."""

    def handle(self, connection: Connection, events: list[Event]) -> None:
        """Something happened on a connection. The last one of each connection that was opened is ``Closed``."""


class Connection:
    """One client. ``pending_bytes`` is what the handler has of it and did not store yet."""

    def __init__(self, sock: socket.socket, make_session: Callable[[Connection], Session], now_s: float) -> None:
        self.sock = sock
        self.me: Identity | None = None
        self.pending_bytes = 0
        self.session = make_session(self)
        self.output = bytearray()
        self.moved_s = now_s
        self.mask = 0
        self.closing_s: float | None = None
        self.held: tuple[float, int, str] | None = None

    def hold(self, until_s: float, code: int, problem: str) -> None:
        """Read nothing more of this client, and end the connection at ``until_s``."""
        if self.held is None:
            self.held = (until_s, code, problem)

    @property
    def wants_read(self) -> bool:
        if self.closing_s is not None:
            return True
        return (
            self.held is None
            and self.pending_bytes < PENDING_BYTES
            and self.session.owed < states.RECEIVE_MAX
            and len(self.output) < OUTPUT_BYTES
        )


class MqttServer:
    """Listens where it is told to; ``post`` brings work from other threads into its own."""

    def __init__(self, handler: Handler, clock: Clock, max_packet_bytes: int) -> None:
        self._handler = handler
        self._clock = clock
        self._max_packet = max_packet_bytes
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, socket.socket] = {}
        self._sleeping_listeners: float | None = None
        self._posted: deque[Callable[[], None]] = deque()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waking = threading.Lock()
        self._ended = False
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._connections: set[Connection] = set()
        self._paused: set[Connection] = set()
        self._all_pending = 0
        self._made = 0
        self._closing = False
        self._pause = threading.Event()
        self._ticked_s = 0.0
        self._thread: threading.Thread | None = None
        self.port = 0
        self.turns = 0

    def start(self, port: int) -> int:
        """Listen on ``port``, or on another when it is 0 or taken; returns the port. Raises OSError when none is free."""
        first_free_port(port, lambda candidate: self._listen(LOOPBACK, candidate), "connect over MQTT")
        self._thread = threading.Thread(target=self._run, name="local-hub", daemon=True)
        self._thread.start()
        return self.port

    def also_listen(self, host: str) -> None:
        """Listen on another local address as well; one that cannot be had is logged."""
        if host in self._listeners:
            return
        try:
            self._listen(host, self.port)
        except OSError as problem:
            log.warning("containers cannot connect to the local hub at %s:%d: %s", host, self.port, problem.strerror)

    def post(self, work: Callable[[], None]) -> None:
        """Have ``work`` done in the server's thread, soon."""
        self._posted.append(work)
        with self._waking:
            # After the end the descriptor's number may be another file's.
            if not self._ended:
                os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """Tell every client good-bye and end the thread."""
        self._closing = True
        self.post(lambda: None)
        if self._thread is not None:
            self._thread.join()

    def count_pending(self, connection: Connection, size: int) -> None:
        """So many bytes more (or less) of this connection wait for their commit."""
        connection.pending_bytes += size
        full = self._all_pending >= ALL_PENDING_BYTES
        self._all_pending += size
        if full and self._all_pending < ALL_PENDING_BYTES:
            for paused in list(self._paused):
                self._watch(paused)

    def flush(self, connection: Connection) -> None:
        """Send what the session has to say. Call it after every use of ``connection.session`` outside ``handle``."""
        connection.output += connection.session.take_output()
        if connection.output and connection in self._connections:
            self._write(connection)
        self._watch(connection)

    def end(self, connection: Connection, code: int, problem: str) -> None:
        """End a connection from the server's side."""
        self._take(connection, connection.session.end(code, problem))

    def _listen(self, host: str, port: int) -> None:
        listener = socket.create_server((host, port), backlog=128)
        listener.setblocking(False)
        # The kernel would keep megabytes for each connection; these are handed down to them.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        self._listeners[host] = listener
        self.port = self.port or listener.getsockname()[1]
        self.post(lambda: self._listen_again(listener))

    def _listen_again(self, listener: socket.socket) -> None:
        if listener.fileno() not in self._selector.get_map():
            self._selector.register(listener, selectors.EVENT_READ)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Exception:
                # One bad turn must not end the hub for all modules.
                log.exception("a turn of the local hub failed")
                self._pause.wait(TICK_S)
            self.turns += 1
        for connection in list(self._connections):
            self.end(connection, states.SHUTTING_DOWN, "the agent ends")
            self._drop(connection)
        for listener in self._listeners.values():
            listener.close()
        self._selector.close()
        with self._waking:
            self._ended = True
            os.close(self._wakeup)

    def _turn(self) -> None:
        idle = not self._connections and self._sleeping_listeners is None
        for key, mask in self._selector.select(None if idle else TICK_S):
            if key.fd == self._wakeup:
                os.eventfd_read(self._wakeup)
            elif isinstance(key.data, Connection):
                self._serve(key.data, mask)
            else:
                self._accept(key.fileobj)  # type: ignore[arg-type]  # everything else that is registered is a listener
        for _ in range(len(self._posted)):
            self._do(self._posted.popleft())
        now_s = self._clock.monotonic_s()
        if now_s - self._ticked_s >= TICK_S:
            self._ticked_s = now_s
            self._tick(now_s)

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("something in the local hub failed")

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as problem:
            # No descriptor to be had right now: that passes, and clients try again.
            log.warning("a connection could not be taken: %s", problem)
            self._selector.unregister(listener)
            self._sleeping_listeners = self._clock.monotonic_s() + ACCEPT_AGAIN_S
            return
        strangers = [known for known in self._connections if known.session.state == "new"]
        if len(strangers) >= STRANGERS_MAX:
            self._drop(min(strangers, key=lambda known: known.moved_s))
        if len(self._connections) >= CONNECTIONS_MAX:
            # Those that were told good-bye and do not go must not keep others out.
            leaving = [known for known in self._connections if known.closing_s is not None]
            if not leaving:
                sock.close()
                return
            self._drop(min(leaving, key=lambda known: known.closing_s or 0.0))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._made += 1
        connection = Connection(sock, self._make_session, self._clock.monotonic_s())
        self._connections.add(connection)
        self._watch(connection)

    def _make_session(self, connection: Connection) -> Session:
        return Session(
            self._max_packet,
            lambda packet: self._handler.admit(connection, packet),
            lambda pattern: self._handler.may_read(connection, pattern),
            self._clock.monotonic_s(),
            f"hedgerow-{self._made}",
        )

    def _serve(self, connection: Connection, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                self._write(connection)
            if mask & selectors.EVENT_READ:
                self._read(connection)
            self._watch(connection)
        except Exception:
            log.exception("a module's connection failed")
            self._lose(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(connection)
        elif connection.closing_s is None:
            self._take(connection, connection.session.receive(data, self._clock.monotonic_s()))

    def _take(self, connection: Connection, events: list[Event]) -> None:
        if events:
            self._handler.handle(connection, events)
        self.flush(connection)
        if connection.session.state == "closed" and connection.closing_s is None and connection in self._connections:
            self._say_goodbye(connection)

    def _say_goodbye(self, connection: Connection) -> None:
        """Wait until the client has closed, for a while: closing first, with unread bytes, would cost it our last words."""
        connection.closing_s = self._clock.monotonic_s() + LINGER_S
        if not connection.output:
            self._shut(connection)

    def _shut(self, connection: Connection) -> None:
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(connection)

    def _write(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.output)
        except BlockingIOError:
            return
        except OSError:
            self._lose(connection)
            return
        if sent:
            connection.moved_s = self._clock.monotonic_s()
            del connection.output[:sent]
        if connection.closing_s is not None and not connection.output:
            self._shut(connection)

    def _watch(self, connection: Connection) -> None:
        """Tell the selector what this connection waits for now."""
        if connection not in self._connections:
            return
        reads = connection.wants_read and (self._all_pending < ALL_PENDING_BYTES or connection.closing_s is not None)
        if reads and connection in self._paused:
            self._paused.discard(connection)
            connection.session.not_heard_by_us(self._clock.monotonic_s())
        elif not reads:
            self._paused.add(connection)
        mask = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if connection.output else 0)
        if mask == connection.mask:
            return
        if connection.mask and mask:
            self._selector.modify(connection.sock, mask, connection)
        elif mask:
            self._selector.register(connection.sock, mask, connection)
        else:
            self._selector.unregister(connection.sock)
        connection.mask = mask

    def _tick(self, now_s: float) -> None:
        if self._sleeping_listeners is not None and now_s >= self._sleeping_listeners:
            self._sleeping_listeners = None
            for listener in self._listeners.values():
                self._listen_again(listener)
        for connection in list(self._connections):
            self._look_after(connection, now_s)

    def _look_after(self, connection: Connection, now_s: float) -> None:
        if connection.closing_s is not None:
            if now_s >= connection.closing_s:
                self._drop(connection)
        elif connection.output and now_s - connection.moved_s > OUTPUT_STUCK_S:
            self._lose(connection)
        elif connection.held is not None and now_s >= connection.held[0]:
            self.end(connection, connection.held[1], connection.held[2])
        elif connection not in self._paused and (overdue := connection.session.overdue(now_s)):
            self.end(connection, states.KEEP_ALIVE, overdue)
        elif connection in self._paused:
            self._watch(connection)  # others may have made room

    def _lose(self, connection: Connection) -> None:
        events = connection.session.lost()
        self._drop(connection)
        if events:
            self._handler.handle(connection, events)

    def _drop(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._paused.discard(connection)
        if connection.mask:
            self._selector.unregister(connection.sock)
            connection.mask = 0
        connection.sock.close()
        if connection.session.state != "closed":
            self._handler.handle(connection, connection.session.lost())
