"""A script's processes: how many, who is free, who is late, who replaces whom.

    workers   answer calls, one at a time each (more when the script says that it is thread-safe)
    standby   loaded and waiting: takes a worker's place in the moment that one is killed or dies; a new standby is started

A call over its time-out is answered on time; its process is killed, unless other calls of a thread-safe script are still inside:
then it takes no more and is killed when they are done. Everything belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from hedgerow.backoff import Backoff
from runtime.admission import Admission
from runtime.errors import Overloaded, ScoringTimeout, ScriptProcessDied
from runtime.exchange import Exchange
from runtime.scripts.frames import Answer, Call, End, Failed, FromHost, Head, Part, Ready
from runtime.scripts.link import Link, start_host

_log = logging.getLogger("hedgerow.runtime.scripts")


class Taker(Protocol):
    """Who gets what became of a call (the AML face)."""

    def answered(self, call: ScriptCall, answer: Answer) -> None: ...

    def began(self, call: ScriptCall, head: Head) -> None: ...

    def failed(self, call: ScriptCall, problem: Exception) -> None: ...


class ScriptCall:
    """One request for the script. ``started_at`` is when a process got it."""

    __slots__ = ("asked_at", "exchange", "finished_at", "frame", "id", "late", "started_at", "streaming", "taker")

    def __init__(self, exchange: Exchange, taker: Taker, body: bytes) -> None:
        self.exchange, self.taker = exchange, taker
        self.id = 0
        self.asked_at = perf_counter()
        self.started_at = self.finished_at = 0.0
        self.late = self.streaming = False
        self.frame = Call(0, body)

    @property
    def queued_s(self) -> float:
        return max(self.started_at - self.asked_at, 0.0)


@dataclass(frozen=True)
class PoolLimits:
    """``workers`` answer, ``standbys`` wait."""

    workers: int
    standbys: int
    queue_wait_s: float
    timeout_s: float


class _Host:
    """One process and what it is doing."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.ready: Ready | None = None
        self.calls: dict[int, ScriptCall] = {}
        self.retiring = False

    @property
    def free(self) -> bool:
        return self.ready is not None and not self.retiring and len(self.calls) < self.ready.calls


class ScriptPool:
    """The processes of one script. Implements what scripts/link.py calls a listener."""

    def __init__(
        self,
        command: Sequence[str],
        limits: PoolLimits,
        admission: Admission,
        *,
        boot_failed: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._command, self._limits, self._admission = command, limits, admission
        # ``boot_failed`` gets the sentence of a script that was never ready; ``changed`` hears of each coming and going.
        self._boot_failed, self._changed = boot_failed, changed
        self._hosts: list[_Host] = []
        self._by_link: dict[Link, _Host] = {}
        self._waiting: deque[ScriptCall] = deque()
        self._ids = itertools.count(1)
        self._backoff = Backoff(first_s=0.1, cap_s=30.0)
        self._failures = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.facts: Ready | None = None
        self.restarts = 0

    # How it is --------------------------------------------------------------------------------------------------------

    @property
    def ready_workers(self) -> int:
        """Processes that answer or could; standbys beyond the wanted number do not count."""
        alive = sum(1 for host in self._hosts if host.ready is not None and not host.retiring)
        return min(alive, self._limits.workers)

    @property
    def pending(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or any(host.calls for host in self._hosts)

    # Life -------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers; the standbys follow once the script is known to load."""
        for _ in range(self._limits.workers):
            self._start_one()

    async def close(self, patience_s: float = 1.0) -> None:
        """End all processes: each by itself if it can, by force after the patience."""
        self._closing = True
        links = [host.link for host in self._hosts if host.link is not None]
        for link in links:
            link.close()
        until = asyncio.get_running_loop().time() + patience_s
        while any(link.process.poll() is None for link in links):
            if asyncio.get_running_loop().time() >= until:
                for link in links:
                    link.kill()
                break
            await asyncio.sleep(0.005)

    # Calls ------------------------------------------------------------------------------------------------------------

    def submit(self, call: ScriptCall) -> None:
        """Hand it to a free process, or let it wait. Raises Overloaded."""
        host = None if self._waiting else self._free_host()
        if host is not None and self._admission.may_run():
            self._admission.begin(1)
            self._give(host, call)
            return
        self._admission.enqueue()
        self._waiting.append(call)

    def dispatch(self) -> None:
        """Begin what may begin."""
        while self._waiting and self._admission.may_run() and (host := self._free_host()) is not None:
            call = self._waiting.popleft()
            self._admission.dequeue(1)
            if call.exchange.gone:
                call.taker.failed(call, Overloaded(waited_ms=round((perf_counter() - call.asked_at) * 1000)))
                continue
            self._admission.begin(1)
            self._give(host, call)

    def tick(self, now: float) -> None:
        """Refuse who waited too long, answer what runs too long. ``now`` is perf_counter's."""
        while self._waiting and now - self._waiting[0].asked_at >= self._limits.queue_wait_s:
            call = self._waiting.popleft()
            self._admission.dequeue(1)
            call.taker.failed(call, Overloaded(waited_ms=round((now - call.asked_at) * 1000)))
        for host in list(self._hosts):
            late = [call for call in host.calls.values() if not call.late and now - call.started_at >= self._limits.timeout_s]
            for call in late:
                self._time_out(host, call)

    # What links say ---------------------------------------------------------------------------------------------------

    def said(self, link: Link, frame: FromHost) -> None:
        host = self._by_link.get(link)
        if host is None:
            return
        match frame:
            case Answer():
                if (call := self._done(host, frame.id)) is not None:
                    call.taker.answered(call, frame)
            case Head() | Part() | End():
                self._streamed(host, link, frame)
            case Ready():
                self._became_ready(host, frame)
            case Failed():
                self._could_not_start(host, frame.sentence)

    def ended(self, link: Link, how: str) -> None:
        host = self._by_link.pop(link, None)
        if host is None or host not in self._hosts:
            return
        self._hosts.remove(host)
        if self._closing:
            return
        died = ScriptProcessDied(how=how)
        if not host.retiring:
            _log.error("script process %d ended: %s", link.pid, how)
        for call in list(host.calls.values()):
            self._admission.end(1)
            if call.streaming:
                call.exchange.end(whole=False)
            elif not call.late:
                call.taker.failed(call, died)
        if self.facts is None:
            self._boot_failed(died.sentence())
            return
        if host.ready is None and not host.retiring:
            self._failures += 1
        self._replace()
        self._changed()
        self._admission.turn()

    # Inside -----------------------------------------------------------------------------------------------------------

    def _free_host(self) -> _Host | None:
        for host in self._workers():
            if host.free:
                return host
        return None

    def _workers(self) -> list[_Host]:
        """The first so many that are ready answer; the others stand by."""
        alive = [host for host in self._hosts if host.ready is not None and not host.retiring]
        return alive[: self._limits.workers]

    def _give(self, host: _Host, call: ScriptCall) -> None:
        call.id = next(self._ids)
        call.started_at = perf_counter()
        host.calls[call.id] = call
        request = call.exchange.request
        if host.ready is not None and host.ready.wants_head:
            frame = Call(call.id, call.frame.body, request.method, request.path, request.query, request.headers, request.caller)
        else:
            frame = Call(call.id, call.frame.body, request.method)
        if host.link is not None:
            host.link.call(frame)

    def _done(self, host: _Host, call_id: int) -> ScriptCall | None:
        """The call, unless it was answered before; its process is free again."""
        call = host.calls.pop(call_id, None)
        if call is None:
            return None
        call.finished_at = perf_counter()
        self._admission.end(1)
        if host.retiring and not host.calls and host.link is not None:
            host.link.kill()
        self._admission.turn()
        return None if call.late else call

    def _streamed(self, host: _Host, link: Link, frame: Head | Part | End) -> None:
        if isinstance(frame, End):
            if (done := self._done(host, frame.id)) is not None:
                done.exchange.end(whole=frame.whole)
            return
        call = host.calls.get(frame.id)
        if call is None or call.late:
            return
        if isinstance(frame, Head):
            call.streaming = True
            call.taker.began(call, frame)
        elif not call.exchange.part(frame.data):
            link.pause()
            self._resume_later(call, link)

    def _resume_later(self, call: ScriptCall, link: Link) -> None:
        def look() -> None:
            if call.exchange.part(b""):
                link.resume()
            else:
                asyncio.get_running_loop().call_later(0.01, look)

        asyncio.get_running_loop().call_later(0.01, look)

    def _time_out(self, host: _Host, call: ScriptCall) -> None:
        call.late = True
        host.retiring = True
        if host.link is not None:
            _log.error("a call did not end within its timeout; script process %d is replaced", host.link.pid)
        if call.streaming:
            call.exchange.end(whole=False)
        else:
            call.taker.failed(call, ScoringTimeout(timeout_ms=round(self._limits.timeout_s * 1000)))
        if all(other.late for other in host.calls.values()) and host.link is not None:
            host.link.kill()
        self._replace()
        self._changed()

    def _became_ready(self, host: _Host, ready: Ready) -> None:
        host.ready = ready
        self._failures = 0
        first = self.facts is None
        self.facts = ready
        if first or self.ready_workers >= self._limits.workers:
            self._replace()
        self._changed()
        self._admission.turn()

    def _could_not_start(self, host: _Host, sentence: str) -> None:
        if self.facts is None:
            self._boot_failed(sentence)
            return
        _log.error("a new script process could not start: %s", sentence)
        host.retiring = True
        self._failures += 1

    def _replace(self) -> None:
        """As many processes as wanted, those that are still loading included."""
        alive = sum(1 for host in self._hosts if not host.retiring)
        wanted = self._limits.workers + (self._limits.standbys if self.facts is not None else 0)
        for _ in range(wanted - alive):
            if self._failures:
                delay_s = self._backoff.delay_s(self._failures, random.random)
                asyncio.get_running_loop().call_later(delay_s, self._replace_now)
                return
            self._start_one()

    def _replace_now(self) -> None:
        alive = sum(1 for host in self._hosts if not host.retiring)
        if not self._closing and alive < self._limits.workers + self._limits.standbys:
            self._start_one()

    def _start_one(self) -> None:
        host = _Host()
        self._hosts.append(host)
        if self.facts is not None:
            self.restarts += 1
        task = asyncio.get_running_loop().create_task(self._start_process(host))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_process(self, host: _Host) -> None:
        link = await start_host(self._command, self)
        host.link = link
        self._by_link[link] = host
        if self._closing:
            link.kill()
