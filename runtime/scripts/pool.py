"""A script's processes: how many, who is free, who is late, who replaces whom.

    workers   answer calls, one at a time each (more when the script says that it is thread-safe)
    standby   loaded and waiting: takes a worker's place in the moment that one is killed or dies; a new standby is started

The first standbys import the script while the workers do, where there are cores to spare. Their init() follows the first
worker's: what it does to files is done by one process first, and a script that cannot be loaded says so once.

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
from time import perf_counter

from hedgerow.backoff import Backoff
from runtime.admission import Admission
from runtime.errors import Overloaded, ScoringTimeout, ScriptProcessDied
from runtime.observing.vitals import Processes
from runtime.scripts.calls import Host, PoolLimits, ScriptCall, Taker
from runtime.scripts.frames import Answer, End, Failed, FromHost, Head, Part, Ready
from runtime.scripts.link import Link, start_host

__all__ = ["PoolLimits", "ScriptCall", "ScriptPool", "Taker"]

_log = logging.getLogger("hedgerow.runtime.scripts")

_LOAD_BACKOFF = Backoff(first_s=0.1, cap_s=30.0)
_CRASH_BACKOFF = Backoff(first_s=0.2, cap_s=2.0)


class ScriptPool:
    """The processes of one script. Implements what link.py calls a listener."""

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
        self._hosts: list[Host] = []
        self._by_link: dict[Link, Host] = {}
        self._waiting: deque[ScriptCall] = deque()
        self._ids = itertools.count(1)
        # In a row: starts that failed, and ends that were not wanted with no answer between them.
        self._failures = self._crashes = 0
        # Processes that are to be started after a while.
        self._coming = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.facts: Ready | None = None
        # Processes that ended while they were wanted.
        self.restarts = 0

    # How it is --------------------------------------------------------------------------------------------------------

    @property
    def ready_workers(self) -> int:
        """Processes that answer or could; standbys beyond the wanted number do not count."""
        return min(sum(1 for host in self._hosts if host.serving), self._limits.workers)

    @property
    def processes(self) -> Processes:
        """For the metrics page."""
        alive = sum(1 for host in self._hosts if host.serving)
        pids = [host.link.pid for host in self._hosts if host.link is not None]
        ready = min(alive, self._limits.workers)
        return Processes(ready, alive - ready, self.restarts, pids)

    @property
    def pending(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or any(host.calls for host in self._hosts)

    # Life -------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers and early standbys; other standbys follow once the script is known to load."""
        for _ in range(self._limits.workers):
            self._start_one()
        for _ in range(self._limits.early_standbys):
            self._start_one(early=True)

    async def close(self, patience_s: float = 1.0) -> None:
        """End all processes: each by itself if it can, by force after the patience."""
        self._closing = True
        links = [host.link for host in self._hosts if host.link is not None]
        for link in links:
            link.close()
        until = asyncio.get_running_loop().time() + patience_s
        while not all(link.ended for link in links):
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
        self._admission.enqueue(len(self._waiting))
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
                self._answered(host, link, frame)
            case Head() | Part() | End():
                self._streamed(host, link, frame)
            case Ready():
                self._became_ready(host, frame)
            case Failed():
                self._could_not_start(host, frame.sentence)

    def leaving(self, link: Link) -> None:
        """What waits goes to the standby at once."""
        host = self._by_link.get(link)
        if host is not None and not self._closing:
            host.leaving = True
            self._changed()
            self._admission.turn()

    def ended(self, link: Link, how: str) -> None:
        host = self._by_link.pop(link, None)
        if host is None or host not in self._hosts:
            return
        self._hosts.remove(host)
        if self._closing:
            return
        self.restarts += 1
        died = ScriptProcessDied(how=how)
        if not host.retiring:
            _log.error("script process %d ended: %s", link.pid, how)
            if host.ready is None:
                self._failures += 1
            else:
                self._crashes += 1
        for call in host.calls.values():
            self._admission.end(1)
            if not call.late:
                self._break_off(call, died)
        if self.facts is None:
            if not host.early:
                self._boot_failed(died.sentence())
            return
        self._replace()
        self._changed()
        self._admission.turn()

    # Inside -----------------------------------------------------------------------------------------------------------

    def _free_host(self) -> Host | None:
        for host in self._workers():
            if host.free:
                return host
        return None

    def _workers(self) -> list[Host]:
        """The first so many that are ready answer; the others stand by."""
        return [host for host in self._hosts if host.serving][: self._limits.workers]

    def _give(self, host: Host, call: ScriptCall) -> None:
        call.id = next(self._ids)
        call.started_at = perf_counter()
        host.calls[call.id] = call
        if host.link is not None:
            host.link.call(host.frame_for(call))

    def _done(self, host: Host, call_id: int) -> ScriptCall | None:
        """The call, unless it was answered before; its process is free again."""
        call = host.calls.pop(call_id, None)
        if call is None:
            return None
        call.finished_at = perf_counter()
        self._admission.end(1)
        if host.retiring and all(other.late for other in host.calls.values()) and host.link is not None:
            host.link.kill()
        self._admission.turn()
        return None if call.late else call

    def _answered(self, host: Host, link: Link, answer: Answer) -> None:
        call = self._done(host, answer.id)
        if call is None:
            return
        self._crashes = 0
        if call.streaming or not 200 <= answer.status <= 599:
            link.nonsense(f"an answer of status {answer.status} that cannot be")
            self._break_off(call, ScriptProcessDied(how="it answered with nonsense"))
        else:
            call.taker.answered(call, answer)

    def _break_off(self, call: ScriptCall, problem: Exception) -> None:
        if call.streaming:
            call.exchange.end(whole=False)
        else:
            call.taker.failed(call, problem)

    def _streamed(self, host: Host, link: Link, frame: Head | Part | End) -> None:
        call = host.calls.get(frame.id)
        if call is None or call.streaming == isinstance(frame, Head):
            # Its head comes once and first; unless the call was answered for it, and is over.
            if call is not None and not call.late:
                link.nonsense("parts of an answer out of order")
            return
        if isinstance(frame, End):
            if (done := self._done(host, frame.id)) is not None:
                self._crashes = 0
                done.exchange.end(whole=frame.whole)
        elif call.late:
            return
        elif isinstance(frame, Head):
            if not 200 <= frame.status <= 599:
                link.nonsense(f"an answer of status {frame.status}")
                return
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

    def _time_out(self, host: Host, call: ScriptCall) -> None:
        call.late = True
        if not host.retiring:
            self._crashes += 1
        host.retiring = True
        if host.link is not None:
            _log.error("a call did not end within its timeout; script process %d is replaced", host.link.pid)
        self._break_off(call, ScoringTimeout(timeout_ms=round(self._limits.timeout_s * 1000)))
        if all(other.late for other in host.calls.values()) and host.link is not None:
            host.link.kill()
        self._replace()
        self._changed()

    def _became_ready(self, host: Host, ready: Ready) -> None:
        host.ready = ready
        self._failures = 0
        first = self.facts is None
        self.facts = ready
        if first:
            self._let_early_ones_go()
        if first or self.ready_workers >= self._limits.workers:
            self._replace()
        self._changed()
        self._admission.turn()

    def _let_early_ones_go(self) -> None:
        for host in self._hosts:
            if host.early and host.link is not None:
                host.link.go()

    def _could_not_start(self, host: Host, sentence: str) -> None:
        if self.facts is None and host.early:
            # The workers decide whether the server comes up; another standby follows then.
            host.retiring = True
            return
        if self.facts is None:
            self._boot_failed(sentence)
            return
        _log.error("a new script process could not start: %s", sentence)
        host.retiring = True
        self._failures += 1

    def _replace(self) -> None:
        """As many processes as wanted, those that are still loading included."""
        missing = self._missing() - self._coming
        delay_s = self._delay_s()
        for _ in range(missing):
            if delay_s:
                self._coming += 1
                asyncio.get_running_loop().call_later(delay_s, self._replace_now)
            else:
                self._start_one()

    def _replace_now(self) -> None:
        self._coming -= 1
        if not self._closing and self._missing() > 0:
            self._start_one()

    def _missing(self) -> int:
        wanted = self._limits.workers + (self._limits.standbys if self.facts is not None else 0)
        return wanted - sum(1 for host in self._hosts if host.alive)

    def _delay_s(self) -> float:
        """None for the first that ends or cannot start; those that do so again and again must not take all the time there is."""
        loads = _LOAD_BACKOFF.delay_s(self._failures, random.random)
        return max(loads, _CRASH_BACKOFF.delay_s(self._crashes - 1, random.random))

    def _start_one(self, *, early: bool = False) -> None:
        host = Host(early=early)
        self._hosts.append(host)
        task = asyncio.get_running_loop().create_task(self._start_process(host))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_process(self, host: Host) -> None:
        def begun(link: Link) -> None:
            host.link = link
            self._by_link[link] = host

        try:
            command = [*self._command, "waits" if host.early else "now"]
            link = await start_host(command, self, begun, memory_bytes=self._limits.memory_bytes)
        except OSError as problem:
            # No room for a process or its descriptors, for now.
            self._hosts.remove(host)
            if not host.early:
                self._failures += 1
                self._could_not_start_at_all(problem.strerror or str(problem))
            return
        if self._closing:
            link.kill()
        elif host.early and self.facts is not None:
            link.go()

    def _could_not_start_at_all(self, problem: str) -> None:
        if self.facts is None:
            self._boot_failed(ScriptProcessDied(how=problem).sentence())
        else:
            _log.error("a new script process could not be started: %s", problem)
            self._replace()
