"""How a worker fares, looked at on its own loop: queue, connections and the loop itself twice a second, the rest every 2 s.

What a request counts is counted at once (metrics.py); what is a state is looked at here, so that requests pay nothing for it.
The page is made after a fresh look at the worker that makes it; its siblings' numbers are as old as their last look.
"""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

from runtime.observing.metrics import Board, ModelCounters

_PERIOD_S = 0.5
# Every fourth look goes at everything, and asks the kernel about memory and processor time.
_KERNEL_EVERY = 4
# The worst lag is told for two windows of this length, so that a scrape every fifteen seconds sees each.
_WINDOW_S = 15.0
_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Processes:
    """A script's processes: how many answer, how many stand by, how many were replaced so far, and all their pids."""

    ready: int = 0
    standby: int = 0
    restarts: int = 0
    pids: Sequence[int] = ()


class Scored(Protocol):
    """What is looked at (scoring.Scoring)."""

    @property
    def queue_depth(self) -> int: ...

    @property
    def in_flight(self) -> int: ...

    @property
    def processes(self) -> Processes: ...

    def pending(self) -> Iterable[tuple[ModelCounters, int]]: ...


class Vitals:
    """Looks, and writes what it sees on the board. Belongs to the loop's thread."""

    def __init__(self, loop: AbstractEventLoop, board: Board, scored: Scored, connections: Callable[[], int]) -> None:
        self._loop, self._scored, self._connections = loop, scored, connections
        self._queue, self._open = board.slot("hedgerow_queue_depth"), board.slot("hedgerow_connections")
        self._in_flight = board.slot("hedgerow_in_flight")
        self._lag = board.slot("hedgerow_event_loop_lag_seconds")
        self._states = {state: board.slot("hedgerow_script_processes", (("state", state),)) for state in ("ready", "standby")}
        self._restarts = board.slot("hedgerow_script_process_restarts_total")
        self._memory = {kind: board.slot("hedgerow_resident_memory_bytes", (("process", kind),)) for kind in ("worker", "script")}
        self._cpu = {kind: board.slot("hedgerow_cpu_seconds_total", (("process", kind),)) for kind in ("worker", "script")}
        self._restarts_told = 0
        self._cpu_told: dict[int, float] = {}
        self._due = 0.0
        self._looks = 0
        self._worst = self._worst_before = 0.0
        self._window_ends = 0.0

    def start(self) -> None:
        """Look from now on."""
        self._window_ends = perf_counter() + _WINDOW_S
        self._tick()

    def refresh(self) -> None:
        """Look now."""
        processes = self._scored.processes
        self._count()
        for counters, count in self._scored.pending():
            counters.pending(count)
        self._states["ready"].set(processes.ready)
        self._states["standby"].set(processes.standby)
        self._restarts.add(processes.restarts - self._restarts_told)
        self._restarts_told = processes.restarts
        self._ask_kernel(processes.pids)

    def _count(self) -> None:
        self._queue.set(self._scored.queue_depth)
        self._in_flight.set(self._scored.in_flight)
        self._open.set(self._connections())

    def _tick(self) -> None:
        now = perf_counter()
        self._loop.call_later(_PERIOD_S, self._tick)
        if self._due:
            self._note_lag(now - self._due, now)
        self._looks += 1
        if self._looks % _KERNEL_EVERY == 1:
            self.refresh()
        else:
            self._count()
        self._due = now + _PERIOD_S

    def _note_lag(self, lag_s: float, now: float) -> None:
        if now >= self._window_ends:
            self._worst_before, self._worst, self._window_ends = self._worst, 0.0, now + _WINDOW_S
        self._worst = max(self._worst, lag_s)
        self._lag.set(round(max(self._worst, self._worst_before), 6))

    def _ask_kernel(self, scripts: Sequence[int]) -> None:
        own = os.getpid()
        self._memory["worker"].set(_resident_bytes(own))
        self._memory["script"].set(sum(_resident_bytes(pid) for pid in scripts))
        told, self._cpu_told = self._cpu_told, {}
        for kind, pids in (("worker", (own,)), ("script", tuple(scripts))):
            for pid in pids:
                spent_s = _cpu_s(pid)
                # A process that has just ended keeps nothing: what it used since the last look is lost.
                self._cpu[kind].add(max(spent_s - told.get(pid, 0.0), 0.0))
                self._cpu_told[pid] = max(spent_s, told.get(pid, 0.0))


def _resident_bytes(pid: int) -> int:
    """0 for a process that is gone, and where there is no /proc."""
    try:
        return int((_PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def _cpu_s(pid: int) -> float:
    """User and system time; 0 for a process that is gone, and where there is no /proc."""
    try:
        # The program's name stands in brackets and may hold anything, brackets and spaces included.
        fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_S
    except (OSError, IndexError, ValueError):
        return 0.0
