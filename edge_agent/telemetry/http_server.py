"""Sockets of the local HTTP port: one thread for all connections, each bounded in bytes, time and number.

A thread for each would wake another for every message: that cost more than storing it. Here everything that has come is looked
at in one turn, handed on together (``Handler.turn_ends``), and answered when it is done. A request that is being answered is
waited for before the next one of its connection is looked at, so that everybody gets a turn.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from edge_agent.errors import MessageRefused, TooManyConnections
from edge_agent.telemetry.bodies import Bodies
from edge_agent.telemetry.http_connection import Connection, Wanted, who_makes_room
from edge_agent.telemetry.http_requests import Answer, Head, refusal, written
from hedgerow.clock import Clock

CONNECTIONS_MAX = 128
# One module must leave room for others.
CONNECTIONS_OF_ONE_MAX = 64
IDLE_TIMEOUT_S = 60.0
# When all places are taken: how long one may let us wait before it has to make room for others.
PATIENCE_S = 2.0
LINGER_S, LINGER_BYTES = 2.0, 4_000_000
# A request behind the one that is being answered may be here already; more is left in the sender's socket.
AHEAD_BYTES_MAX = 65_536
TICK_S = 0.5
CLOSE_PATIENCE_S = 2.0
_RECEIVE_BYTES = 65_536
_ACCEPT_AGAIN_S = 0.2
_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
log = logging.getLogger(__name__)


class Handler(Protocol):
    """Who decides (``Intake``); called in the server's thread only."""

    def open(self, head: Head, local_host: str) -> Answer | Wanted:
        """What to do with a request that came to ``local_host``."""

    def turn_ends(self) -> None:
        """Everything that has come until now was handed over."""


class HttpServer:
    """Listens where it is told to. All of it but ``listen`` and ``close`` happens in its own thread."""

    def __init__(self, handler: Handler, clock: Clock, name: str = "intake") -> None:
        self._handler = handler
        self._clock = clock
        self._epoll = select.epoll()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wakeup, _READ)
        self._waking = threading.Lock()
        self._woken = False
        self._ended = False
        self._work: deque[Callable[[], None]] = deque()
        self._listeners: dict[int, socket.socket] = {}
        self._deaf_until_s: float | None = None
        self._connections: dict[int, Connection] = {}
        self._of_module: Counter[str] = Counter()
        self._bodies = Bodies()
        self._now_s = clock.monotonic_s()
        self._ticked_s = self._now_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.turns = 0

    def listen(self, host: str, port: int) -> int:
        """Listen there as well; returns the port. Raises OSError when it cannot be had."""
        listener = socket.create_server((host, port), backlog=128)
        listener.setblocking(False)
        self._post(lambda: self._hear(listener))
        if not self._thread.is_alive() and not self._closing.is_set():
            self._thread.start()
        return int(listener.getsockname()[1])

    def close(self) -> None:
        """Take no more requests, answer those that are under way, end."""
        self._closing.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()
        else:
            self._end()

    def wake(self) -> None:
        """Go round once."""
        self._post(lambda: None)

    def _post(self, work: Callable[[], None]) -> None:
        """Have ``work`` done in the server's thread, soon."""
        self._work.append(work)
        with self._waking:
            # One wake-up for everything that is posted until the thread looks. After the end the number may be another file's.
            if not self._woken and not self._ended:
                self._woken = True
                os.eventfd_write(self._wakeup, 1)

    def _run(self) -> None:
        until_s = float("inf")
        while self._clock.monotonic_s() < until_s:
            try:
                self._turn()
            except Exception:
                # One bad turn must not end the port for all modules.
                log.exception("a turn of the local port failed")
                self._closing.wait(TICK_S)
            if self._closing.is_set():
                until_s = min(until_s, self._clock.monotonic_s() + CLOSE_PATIENCE_S)
                self._leave()
                if not self._connections:
                    break
            self.turns += 1
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._end()

    def _end(self) -> None:
        with self._waking:
            if not self._ended:
                self._ended = True
                self._epoll.close()
                os.close(self._wakeup)

    def _leave(self) -> None:
        """No more requests; whoever does not wait for an answer goes."""
        self._deafen(None)
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections.values()):
            if not connection.answering and not connection.output:
                self._drop(connection)

    def _turn(self) -> None:
        patience_s = TICK_S if self._connections or self._deaf_until_s is not None else -1
        came = self._epoll.poll(0 if self._work else patience_s)
        self._now_s = self._clock.monotonic_s()
        for fd, mask in came:
            if (connection := self._connections.get(fd)) is not None:
                self._guarded(connection, lambda served, mask=mask: self._serve(served, mask))  # type: ignore[misc]  # bound for this round
            elif fd == self._wakeup:
                os.eventfd_read(self._wakeup)
                with self._waking:
                    self._woken = False
            elif fd in self._listeners:
                self._accept(self._listeners[fd])
        for _ in range(len(self._work)):
            self._work.popleft()()
        self._handler.turn_ends()
        if self._now_s - self._ticked_s >= TICK_S:
            self._ticked_s = self._now_s
            self._tick()

    def _guarded(self, connection: Connection, work: Callable[[Connection], None]) -> None:
        try:
            work(connection)
        except OSError as problem:
            log.debug("a module's connection ended: %s", problem)
            self._drop(connection)
        except Exception:
            log.exception("a module's request failed")
            self._drop(connection)

    def _hear(self, listener: socket.socket) -> None:
        self._listeners[listener.fileno()] = listener
        if self._deaf_until_s is None:
            self._epoll.register(listener, _READ)

    def _deafen(self, until_s: float | None) -> None:
        """Leave new connections in the kernel's backlog; None: until there is a place."""
        if self._deaf_until_s is None:
            for listener in self._listeners.values():
                self._epoll.unregister(listener)
        self._deaf_until_s = float("inf") if until_s is None else until_s

    def _listen_again(self) -> None:
        if self._deaf_until_s is not None and not self._closing.is_set():
            self._deaf_until_s = None
            for listener in self._listeners.values():
                self._epoll.register(listener, _READ)

    def _accept(self, listener: socket.socket) -> None:
        if self._deaf_until_s is not None:
            return
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as problem:
            # No descriptor to be had right now: that passes, and modules try again.
            log.warning("a connection could not be taken: %s", problem)
            self._deafen(self._now_s + _ACCEPT_AGAIN_S)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, self._clock.monotonic_s())
        self._connections[connection.fd] = connection
        self._watch(connection)
        if len(self._connections) >= CONNECTIONS_MAX:
            self._deafen(None)

    def _serve(self, connection: Connection, mask: int) -> None:
        if mask & _WRITE and connection.output:
            self._write(connection)
        if mask & ~_WRITE and connection.fd in self._connections:
            self._read(connection)
        if connection.fd in self._connections:
            self._watch(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        if connection.leaves_s is not None:
            connection.left_over += len(data)
            if not data or connection.left_over > LINGER_BYTES:
                self._drop(connection)
        elif data:
            connection.moved_s = self._now_s
            connection.incoming.add(data)
            self._advance(connection)
        else:
            connection.ended = True
            self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Look at the next request, as far as it is here."""
        if connection.busy:
            return
        try:
            if connection.wanted is None and not self._open(connection):
                return
            wanted = connection.wanted
            if wanted is None or (self._bodies.crowded and self._bodies.waits(connection)):
                return
            if len(connection.incoming) < wanted.length:
                if connection.ended:
                    came = len(connection.incoming)
                    raise MessageRefused(problem=f"its body ended after {came} of {wanted.length} bytes")
                return
        except MessageRefused as problem:
            self._answer(connection, refusal(problem, HTTPStatus.BAD_REQUEST), stays=False)
            return
        connection.answering, connection.waits_since_s = True, None
        wanted.go(connection.incoming.take(wanted.length), lambda answer: self._post(lambda: self._reply(connection, answer)))

    def _open(self, connection: Connection) -> bool:
        """Read a head and ask what to do; False when there is nothing more to do now. Raises MessageRefused."""
        head = connection.head = connection.incoming.take_head()
        if head is None:
            if connection.ended:
                self._drop(connection)
            return False
        wanted = self._handler.open(head, connection.local_host)
        if isinstance(wanted, Answer):
            # What was not read of a refused body would be taken for the next request.
            self._answer(connection, wanted, stays=head.header("content-length") in ("", "0"))
            return False
        if wanted.module != connection.module and wanted.module is not None and not self._let_in(connection, wanted.module):
            return False
        connection.wanted = wanted
        connection.waits_since_s = self._now_s
        if head.header("expect").lower() == "100-continue":
            connection.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._bodies.take(connection, wanted.length):
            connection.waits_since_s = None
        return True

    def _let_in(self, connection: Connection, module: str) -> bool:
        if self._of_module[module] >= CONNECTIONS_OF_ONE_MAX:
            refused = TooManyConnections(module=module, limit=CONNECTIONS_OF_ONE_MAX)
            self._answer(connection, refusal(refused, HTTPStatus.TOO_MANY_REQUESTS), stays=False)
            return False
        self._forget_module(connection)
        connection.module = module
        self._of_module[module] += 1
        return True

    def _forget_module(self, connection: Connection) -> None:
        if connection.module is not None:
            self._of_module[connection.module] -= 1
            if not self._of_module[connection.module]:
                del self._of_module[connection.module]
            connection.module = None

    def _let_go(self, connection: Connection) -> None:
        for admitted in self._bodies.give_back(connection):
            admitted.waits_since_s = self._now_s
            self._post(lambda admitted=admitted: self._go_on(admitted))  # type: ignore[misc]  # bound for this round

    def _reply(self, connection: Connection, answer: Answer) -> None:
        head = connection.head
        if self._connections.get(connection.fd) is connection and connection.answering and head is not None:
            self._guarded(connection, lambda served: self._answer(served, answer, stays=True))

    def _answer(self, connection: Connection, answer: Answer, *, stays: bool) -> None:
        head = connection.head
        stays = stays and head is not None and head.keep_alive and not self._closing.is_set()
        connection.answering, connection.wanted, connection.head = False, None, None
        connection.waits_since_s = connection.moved_s = self._now_s
        self._let_go(connection)
        connection.output += written(answer, keep_alive=stays)
        if not stays:
            connection.leaves_s = self._now_s + IDLE_TIMEOUT_S
        self._write(connection)
        if connection.fd in self._connections:
            self._watch(connection)

    def _write(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.output)
        except BlockingIOError:
            return
        if sent:
            connection.moved_s = self._now_s
            del connection.output[:sent]
        if connection.output:
            return
        if connection.leaves_s is not None:
            # Let the other side read the answer: closing while it still sends would reset the connection and lose the answer.
            connection.sock.shutdown(socket.SHUT_WR)
            connection.leaves_s = self._now_s + LINGER_S
        elif len(connection.incoming) or connection.ended:
            self._post(lambda: self._go_on(connection))

    def _go_on(self, connection: Connection) -> None:
        if self._connections.get(connection.fd) is connection:
            self._guarded(connection, self._advance)
            if connection.fd in self._connections:
                self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        """Tell the kernel what this connection waits for now."""
        if connection.leaves_s is not None:
            reads = not connection.output
        else:
            ahead = connection.busy and len(connection.incoming) > AHEAD_BYTES_MAX
            reads = not (connection.ended or ahead or (self._bodies.crowded and self._bodies.waits(connection)))
        mask = (_READ if reads else 0) | (_WRITE if connection.output else 0)
        if mask == connection.mask:
            return
        # Without a wish it is not registered at all: the kernel would tell of its end again and again.
        if connection.mask and mask:
            self._epoll.modify(connection.fd, mask)
        elif mask:
            self._epoll.register(connection.fd, mask)
        else:
            self._epoll.unregister(connection.fd)
        connection.mask = mask

    def _drop(self, connection: Connection) -> None:
        if self._connections.get(connection.fd) is not connection:
            return
        del self._connections[connection.fd]
        if connection.mask:
            self._epoll.unregister(connection.fd)
        self._forget_module(connection)
        connection.sock.close()
        self._let_go(connection)
        if len(self._connections) < CONNECTIONS_MAX and self._deaf_until_s == float("inf"):
            self._listen_again()

    def _tick(self) -> None:
        if self._deaf_until_s is not None and self._now_s >= self._deaf_until_s:
            self._listen_again()
        for connection in list(self._connections.values()):
            over_s = connection.leaves_s
            if over_s is None and connection.waits_since_s is not None:
                over_s = connection.moved_s + IDLE_TIMEOUT_S
            if over_s is not None and self._now_s >= over_s:
                self._drop(connection)
        if len(self._connections) >= CONNECTIONS_MAX or self._bodies.crowded:
            self._make_room()

    def _make_room(self) -> None:
        """One module must not keep all places, or all room for bodies, by saying nothing: who was silent for too long ends."""
        full = len(self._connections) >= CONNECTIONS_MAX
        for known in who_makes_room(self._connections.values(), self._now_s - PATIENCE_S, full=full):
            self._drop(known)
