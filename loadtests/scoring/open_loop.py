"""Sends requests at a fixed rate, whether answers come or not, and counts each latency from when the request was meant to go.

``python -m loadtests.scoring.open_loop < PLAN > OUTCOME`` (msgspec's JSON of the structs below), a process of its own with one
thread. Without a rate every connection sends as soon as it is answered: that measures the peak. Every answer's body is compared.
"""

from __future__ import annotations

import gc
import math
import select
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import msgspec

from loadtests.scoring.latencies import Latencies

_ANSWER_WITHIN_S = 10.0
_MOST_EXAMPLES = 5


class Asked(msgspec.Struct, frozen=True):
    """A whole request. ``expected`` is what its answer's body must be; None: any, with status 200."""

    kind: str
    request: bytes
    expected: bytes | None = None


class Plan(msgspec.Struct):
    """``order``: places in ``asked``, in turn. ``rate``: requests a second, None for as many as are answered."""

    port: int
    asked: list[Asked]
    order: list[int]
    connections: int
    seconds: float
    rate: float | None = None


class Minute(msgspec.Struct):
    """``late``: how long requests waited here for a free connection, or for this process itself; part of the latencies."""

    latencies: dict[str, tuple[dict[int, int], float]] = {}
    late: tuple[dict[int, int], float] = ({}, 0.0)
    errors: dict[str, int] = {}


class Outcome(msgspec.Struct):
    """``unsent``: requests that were due and never found a free connection. ``cpu_s``: what sending them cost here."""

    seconds: float
    cpu_s: float
    minutes: list[Minute]
    examples: list[str]
    unsent: int

    @property
    def answered(self) -> int:
        return sum(sum(counts.values()) for minute in self.minutes for counts, _ in minute.latencies.values())

    @property
    def errors(self) -> int:
        return sum(sum(minute.errors.values()) for minute in self.minutes)


def answer_in(received: bytes) -> tuple[int, bytes] | None:
    """Status and body, None while some of it is missing. Raises ValueError for what is no answer with a length."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = received[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0 or not head.startswith(b"http/1.1 "):
        raise ValueError(f"no answer with a length: {received[:200]!r}")
    stop = head.find(b"\r\n", at + 2)
    length = int(head[at + 17 : stop if stop > 0 else None])
    if len(received) < end + 4 + length:
        return None
    return int(received[9:12]), received[end + 4 : end + 4 + length]


@dataclass
class _Counting:
    """One minute's counts while it lasts."""

    latencies: dict[str, Latencies] = field(default_factory=dict)
    late: Latencies = field(default_factory=Latencies)
    errors: Counter[str] = field(default_factory=Counter)

    def told(self) -> Minute:
        by_kind = {kind: (dict(one.counts), one.worst_s) for kind, one in self.latencies.items()}
        return Minute(by_kind, (dict(self.late.counts), self.late.worst_s), dict(self.errors))


class _Connection:
    """One keep-alive connection, with at most one request on it."""

    __slots__ = ("asked", "due", "received", "sent_at", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.asked: Asked | None = None
        self.received = b""
        self.due = self.sent_at = 0.0


class OpenLoop:
    """Runs one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._epoll = select.epoll()
        self._idle: deque[_Connection] = deque()
        self._by_descriptor: dict[int, _Connection] = {}
        self._minutes = [_Counting() for _ in range(max(math.ceil(plan.seconds / 60), 1))]
        self._examples: list[str] = []
        self._began = 0.0
        self._number = 0

    def run(self) -> Outcome:
        try:
            for _ in range(self._plan.connections):
                self._connect()
            used_s = time.process_time()
            sent_s = self._send_all()
            used_s = time.process_time() - used_s
            self._give_up_old(math.inf)
        finally:
            for connection in self._by_descriptor.values():
                connection.socket.close()
            self._epoll.close()
        unsent = max(int(sent_s * self._plan.rate) - self._number, 0) if self._plan.rate else 0
        return Outcome(sent_s, used_s, [minute.told() for minute in self._minutes], self._examples, unsent)

    def _send_all(self) -> float:
        """Until the time is over, and the last answers are there; seconds in which requests were sent."""
        self._began = looked = time.perf_counter()
        ends = self._began + self._plan.seconds
        while (now := time.perf_counter()) < ends:
            self._send_due(now)
            self._wait(ends)
            if now - looked > 1.0:
                looked = now
                self._give_up_old(now)
        sent_s = time.perf_counter() - self._began
        while len(self._idle) < len(self._by_descriptor) and time.perf_counter() < ends + _ANSWER_WITHIN_S:
            self._take(0.1)
        return sent_s

    def _due(self, now: float) -> float:
        return now if self._plan.rate is None else self._began + self._number / self._plan.rate

    def _send_due(self, now: float) -> None:
        while self._idle and (due := self._due(now)) <= now:
            connection = self._idle.popleft()
            asked = self._plan.asked[self._plan.order[self._number % len(self._plan.order)]]
            self._number += 1
            connection.asked, connection.due, connection.sent_at = asked, due, now
            self._minute(due).late.add(now - due)
            try:
                # An idle connection has room for it; if not, the answer never comes and is told as missing.
                connection.socket.send(asked.request)
            except OSError as problem:
                self._broken(connection, f"send: {type(problem).__name__}")
            now = time.perf_counter()

    def _wait(self, ends: float) -> None:
        if not self._idle:
            self._take(0.1)
            return
        left_s = min(self._due(time.perf_counter()), ends) - time.perf_counter()
        if left_s > 0:
            # Poll counts in milliseconds, which is several requests; select counts in microseconds.
            select.select([self._epoll], [], [], left_s)
        self._take(0)

    def _take(self, timeout_s: float) -> None:
        for descriptor, _ in self._epoll.poll(timeout_s):
            connection = self._by_descriptor[descriptor]
            try:
                received = connection.socket.recv(262_144)
                if not received:
                    raise ConnectionError("closed by the server")
                connection.received += received
                found = answer_in(connection.received)
            except (OSError, ValueError) as problem:
                self._broken(connection, f"{type(problem).__name__}: {problem}"[:200])
                continue
            if found is not None:
                self._answered(connection, *found)

    def _answered(self, connection: _Connection, status: int, body: bytes) -> None:
        asked = connection.asked
        if asked is None:
            self._broken(connection, "an answer to nothing")
            return
        minute = self._minute(connection.due)
        latencies = minute.latencies.get(asked.kind)
        if latencies is None:
            latencies = minute.latencies[asked.kind] = Latencies()
        latencies.add(time.perf_counter() - connection.due)
        if status != 200:
            self._error(minute, f"status {status}", asked, body)
        elif asked.expected is not None and body != asked.expected:
            self._error(minute, "another answer", asked, body)
        connection.asked, connection.received = None, b""
        self._idle.append(connection)

    def _error(self, minute: _Counting, what: str, asked: Asked, body: bytes) -> None:
        minute.errors[what] += 1
        if len(self._examples) < _MOST_EXAMPLES:
            self._examples.append(f"{asked.kind}: {what}: {body[:200]!r}")

    def _broken(self, connection: _Connection, what: str) -> None:
        """Counts it, and connects anew."""
        asked = connection.asked or Asked("nothing asked", b"")
        self._error(self._minute(connection.due or self._began), what, asked, connection.received)
        self._epoll.unregister(connection.socket)
        del self._by_descriptor[connection.socket.fileno()]
        if connection in self._idle:
            self._idle.remove(connection)
        connection.socket.close()
        try:
            self._connect()
        except OSError as problem:
            self._error(self._minute(time.perf_counter()), f"connect: {type(problem).__name__}", asked, b"")

    def _connect(self) -> None:
        connection = _Connection(self._plan.port)
        self._by_descriptor[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN)
        self._idle.append(connection)

    def _give_up_old(self, now: float) -> None:
        for connection in list(self._by_descriptor.values()):
            if connection.asked is not None and now - connection.sent_at > _ANSWER_WITHIN_S:
                self._broken(connection, "no answer in time")

    def _minute(self, when: float) -> _Counting:
        return self._minutes[min(int((when - self._began) / 60), len(self._minutes) - 1)]


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    # No reference cycles are made here, and a pause of the collector would count as the server's.
    gc.disable()
    sys.stdout.buffer.write(msgspec.json.encode(OpenLoop(plan).run()))


if __name__ == "__main__":
    main()
