"""The worker process: an event loop under gunicorn's master, and the order in which it comes up and goes down.

    loading   it accepts at once when no other worker is ready (health answers 503, scoring waits), else it loads first
    ready     the ready-file is written by the first worker that gets here
    stuck     a cancelled run does not end: the worker stops accepting, answers what it has and ends; the master starts another
    draining  SIGTERM, or the master is gone: what was accepted is answered, then it ends. SIGINT and SIGQUIT: the same in a hurry

A failed load ends the process with code 3, by which gunicorn's master knows that starting others is no use.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence

import uvloop
from gunicorn.workers.base import Worker

from hedgerow.errors import HedgerowError
from runtime.memory import return_large_blocks
from runtime.scoring import Loaded

_log = logging.getLogger("hedgerow.runtime")

EXIT_BOOT_FAILURE = 3
_HEARTBEAT_S = 1.0
# Answers of a worker that is stuck: the run that is stuck itself is not waited for.
_STUCK_PATIENCE_S = 2.0
# Ctrl-C and SIGQUIT: what is nearly done may end. gunicorn's master gives two seconds.
_QUICK_PATIENCE_S = 1.5
# A container starts with 1024 descriptors and may have many more.
_DESCRIPTORS = 65_536


class ScoringWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """One scoring process. ``row`` is its place on the metrics board, given by the master before the fork."""

    row: int = 0
    alive: bool

    def init_process(self) -> None:
        # Block buffering would keep prints back until the process ends.
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # TextIOWrapper in a process of ours
        _allow_descriptors()
        return_large_blocks()
        super().init_process()

    def load_wsgi(self) -> None:
        """Nothing: this worker speaks HTTP itself."""

    def init_signals(self) -> None:
        """Only back to the defaults here; the loop takes its signals over when it runs."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def run(self) -> None:
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        code = loop.run_until_complete(self._serve(loop))
        self.app.worker_ends()
        # Python's own clean-up would wait for threads that may never end, and takes longer than all the rest.
        self.end_now(code)

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> int:
        self._loop = loop
        self._stop = asyncio.Event()
        self._code = 0
        # How long its callers' requests are waited for at the end; None: not at all.
        self._patience_s: float | None = float(self.cfg.graceful_timeout)
        self._accepting = self._retired = self._orphaned = False
        self._hurried = 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._told_to_stop, number)
        loop.add_signal_handler(signal.SIGUSR1, self.log.reopen_files)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        self.scoring, self.door = self.app.make_front(self)
        self._beat()
        if not self.app.another_is_ready():
            self._accept()
        threading.Thread(target=self._load, name="loader", daemon=True).start()
        await self._stop.wait()
        await self._go_down()
        return self._code

    # Coming up --------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """On a thread of its own, beside the HTTP face."""
        try:
            loaded = self.scoring.load()
        except HedgerowError as problem:
            self._loop.call_soon_threadsafe(self.give_up, problem.sentence())
        # Anything else is our own fault; without this the thread would end silently and the worker load for ever.
        except Exception:  # noqa: BLE001 - reported, and the process ends
            _log.critical("Hedgerow failed while loading; please report it", exc_info=True)
            self._loop.call_soon_threadsafe(self.give_up, "")
        else:
            self._loop.call_soon_threadsafe(self._install, loaded)

    def _install(self, loaded: Sequence[Loaded]) -> None:
        self.scoring.install(loaded)

    def became_ready(self) -> None:
        """Everything is loaded (told by Scoring)."""
        # What was loaded stays for ever: the collector need not look at it in the middle of a request.
        gc.collect()
        gc.freeze()
        self._accept()
        self.app.worker_is_ready(self)

    def give_up(self, sentence: str) -> None:
        """Nothing can be served: say why, once, and end with the code that stops the master too."""
        if sentence:
            _log.critical("%s", sentence)
        self._code, self._patience_s = EXIT_BOOT_FAILURE, None
        self._stop.set()

    def _accept(self) -> None:
        if not self._accepting and not self._stop.is_set():
            self._accepting = True
            self.app.open_door(self.door, [listener.sock for listener in self.sockets], self.give_up)

    # While it runs ----------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self.notify()
        if not self._orphaned and self.ppid != os.getppid():
            _log.error("the master (pid %d) is gone; this worker ends when its requests are answered", self.ppid)
            self._orphaned, self._code = True, 1
            self.scoring.drain()
            self._stop.set()
        if not self._retired and self.scoring.state == "stuck":
            _log.error("a run does not end after its timeout; this worker (pid %d) is replaced", self.pid)
            self._retired, self._patience_s = True, _STUCK_PATIENCE_S
            self._stop.set()
        self._loop.call_later(_HEARTBEAT_S, self._beat)

    # Going down -------------------------------------------------------------------------------------------------------

    def _told_to_stop(self, number: int) -> None:
        self.alive = False
        self.scoring.drain()
        if number != signal.SIGTERM:
            # Ctrl-C in a terminal reaches master and workers alike, and the master's SIGQUIT follows; a second one is an order.
            self._hurried += number == signal.SIGINT
            if self._hurried > 1:
                self.end_now(0)
            elif self._stop.is_set():
                self._loop.call_later(_QUICK_PATIENCE_S, self.end_now, 0)
            else:
                self._patience_s = _QUICK_PATIENCE_S
        self._stop.set()

    async def _go_down(self) -> None:
        # The whole server stops only after the master closed the door (ScoringArbiter), so taking what waits comes to an end.
        patience_s = self._patience_s
        self.door.stop_accepting(take_waiting=not self._retired and patience_s is not None)
        if patience_s is not None:
            await asyncio.gather(self.door.drain(patience_s), self.app.drain_grpc(patience_s))
        await self.scoring.close()

    def end_now(self, code: int) -> None:
        """Leave at once. The script's processes follow: the kernel ends them."""
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _allow_descriptors() -> None:
    """As many connections as the system lets us have; its usual first limit is of the days of select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < wanted:
        # A sandbox may refuse it; then there are as many as there are.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
