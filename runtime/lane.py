"""Work that must be bounded and timed: a few threads, a short queue, an answer in time whatever the work does.

The caller's thread waits, a lane's thread works. A turn that does not come within the queue wait is refused (Overloaded); work
that takes too long is answered (ScoringTimeout) and cancelled, and if it does not end then, the lane is *stuck* and its
process must be replaced: a thread cannot be killed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from runtime.errors import Overloaded, ScoringTimeout

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Work(Protocol[T_co]):
    """Something to do once, that can be asked to stop."""

    def call(self) -> T_co: ...

    def cancel(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Ran(Generic[T]):
    """What the work gave, how long it waited for its turn and how long it took."""

    value: T
    queued_s: float
    ran_s: float


class _Ticket:
    __slots__ = ("done", "error", "finished_at", "started", "started_at", "value", "work")

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self.started, self.done = threading.Event(), threading.Event()
        self.started_at = self.finished_at = 0.0
        self.value: Any = None
        self.error: BaseException | None = None


class Lane:
    """Up to ``threads`` calls at once, ``queue_length`` waiting, each at most ``queue_wait_s``.

    ``patience_s`` is how long cancelled work may go on before the lane counts as stuck.
    """

    def __init__(self, name: str, *, threads: int, queue_length: int, queue_wait_s: float, patience_s: float) -> None:
        self._name = name
        self._most_threads = threads
        self._queue_length = queue_length
        self._queue_wait_s = queue_wait_s
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: deque[_Ticket] = deque()
        self._threads = self._idle = 0
        self._abandoned: dict[_Ticket, float] = {}

    def run(self, work: Work[T], timeout_s: float | None) -> Ran[T]:
        """Wait for a turn and for the answer; what the work raises is raised here.

        Raises Overloaded or ScoringTimeout. ``timeout_s`` None waits for ever (loading).
        """
        asked_at = monotonic()
        ticket = _Ticket(work)
        self._enqueue(ticket)
        if not ticket.started.wait(self._queue_wait_s if timeout_s is not None else None) and self._withdraw(ticket):
            raise Overloaded(waited_ms=round((monotonic() - asked_at) * 1000))
        if not ticket.done.wait(timeout_s) and self._abandon(ticket):
            work.cancel()
            raise ScoringTimeout(timeout_ms=round((timeout_s or 0) * 1000))
        if ticket.error is not None:
            raise ticket.error
        return Ran(ticket.value, ticket.started_at - asked_at, ticket.finished_at - ticket.started_at)

    @property
    def is_stuck(self) -> bool:
        """Whether cancelled work has gone on for longer than the patience."""
        with self._changed:
            return any(monotonic() - since >= self._patience_s for since in self._abandoned.values())

    @property
    def pending(self) -> int:
        """Requests that wait for their turn now."""
        return len(self._waiting)

    def _enqueue(self, ticket: _Ticket) -> None:
        with self._changed:
            # A thread that was woken for an earlier ticket still counts as idle: only the surplus serves this one.
            free = self._idle - len(self._waiting)
            if free <= 0 and self._threads < self._most_threads:
                self._threads += 1
                name = f"{self._name}-{self._threads}"
                # Daemon: a stuck call must not keep the process from ending.
                threading.Thread(target=self._work, name=name, daemon=True).start()
            elif free <= 0 and len(self._waiting) >= self._queue_length + self._idle:
                raise Overloaded(waited_ms=0)
            self._waiting.append(ticket)
            self._changed.notify()

    def _withdraw(self, ticket: _Ticket) -> bool:
        """Take a ticket out of the queue; False when its turn came in this very moment."""
        with self._changed:
            if ticket.started.is_set():
                return False
            self._waiting.remove(ticket)
            return True

    def _abandon(self, ticket: _Ticket) -> bool:
        """Remember work that is too late; False when it ended in this very moment."""
        with self._changed:
            if ticket.done.is_set():
                return False
            self._abandoned[ticket] = monotonic()
            return True

    def _work(self) -> None:
        while True:
            ticket = self._next()
            try:
                ticket.value = ticket.work.call()
            # The work is a user's code: SystemExit and KeyboardInterrupt are its failure too, not the end of this thread.
            except BaseException as problem:  # noqa: BLE001 - see above - foreign code, see above
                ticket.error = problem
            ticket.finished_at = monotonic()
            with self._changed:
                ticket.done.set()
                self._abandoned.pop(ticket, None)

    def _next(self) -> _Ticket:
        with self._changed:
            self._idle += 1
            while not self._waiting:
                self._changed.wait()
            self._idle -= 1
            ticket = self._waiting.popleft()
            ticket.started_at = monotonic()
            ticket.started.set()
            return ticket


class Call(Generic[T]):
    """A plain function as Work; it cannot be cancelled."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function

    def call(self) -> T:
        return self._function()

    def cancel(self) -> None:
        """Nothing to do: Python code of a user cannot be stopped from outside."""
