"""The worker process: gunicorn's threaded worker, plus loading beside the HTTP face, an orderly end, and giving up when stuck.

Life of a worker (State of scoring.py):

    loading   it accepts at once when no other worker is ready (health answers 503, scoring waits), else it loads first
    ready     the ready-file is written by the first worker that gets here
    stuck     a cancelled call does not end: the worker stops accepting, answers what it has and ends; the master starts another
    draining  SIGTERM: what was accepted is answered, then it ends

A failed load ends the process with code 3, by which gunicorn's master knows that starting others is no use.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from time import monotonic
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from hedgerow.errors import HedgerowError
from runtime.scoring import Scoring

_log = logging.getLogger("hedgerow.runtime")

EXIT_BOOT_FAILURE = 3
# A stuck worker gives its idle kept-alive connections this long before it makes way.
_LINGER_S = 0.2
# Longest that a late answer waits for the worker to stop accepting.
_MAKE_WAY_S = 0.25


class ScoringWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """One scoring process. ``row`` is its place on the metrics board, given by the master before the fork."""

    row: int = 0
    alive: bool

    def init_process(self) -> None:
        # Block buffering would keep a script's prints back until the process ends.
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # TextIOWrapper in a process of ours
        self.load_failed = threading.Event()
        self.retired = False
        self._makes_way = threading.Event()
        super().init_process()

    @property
    def scoring(self) -> Scoring:
        scoring: Scoring = self.app.scoring
        return scoring

    def run(self) -> None:
        self.scoring.when_stuck(self._make_way)
        loader = threading.Thread(target=self._load, name="loader", daemon=True)
        loader.start()
        if self.app.another_is_ready():
            while loader.is_alive():
                self.notify()
                loader.join(0.2)
        super().run()

    def _load(self) -> None:
        try:
            self.scoring.load()
            self.app.worker_is_ready(self)
        except HedgerowError as problem:
            _log.critical("%s", problem.sentence())
            self.load_failed.set()
        # Anything else is our own fault; without this the thread would end silently and the worker load for ever.
        except Exception:  # noqa: BLE001 - reported, and the process ends
            _log.critical("Hedgerow failed while loading; please report it", exc_info=True)
            self.load_failed.set()
        # Wakes the main loop, which then looks at load_failed in notify().
        self.method_queue.defer(lambda: None)

    def notify(self) -> None:
        """The heartbeat, at every turn of the main loop; the place to notice what ends this worker."""
        super().notify()
        if late := self.app.receiving.cut_late(monotonic()):
            _log.warning("%d callers did not send their request in time; their connections are closed", late)
        if self.load_failed.is_set():
            self.end_now(EXIT_BOOT_FAILURE)
        if self.alive and self.scoring.state == "stuck":
            self._retire()

    def handle(self, conn: Any) -> Any:  # noqa: ANN401 - gunicorn's connection and answer
        """On a thread of the pool: wait for a request and answer it. The app says when the request is whole."""
        connection = conn.sock
        self.app.receiving.begin(connection, monotonic())
        try:
            return super().handle(conn)
        finally:
            self.app.receiving.done(connection)

    def _make_way(self) -> None:
        """On a request's thread: the caller that got a time-out and asks again must meet the next worker, not this one."""
        self.method_queue.defer(self._retire)
        self._makes_way.wait(_MAKE_WAY_S)

    def _retire(self) -> None:
        if not self.retired:
            _log.error("a call does not end after its timeout; this worker (pid %d) is replaced", self.pid)
        self.retired = True
        self.alive = False

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ANN401 - gunicorn's signature
        self.scoring.drain()
        super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        """At the end, first take every connection that the kernel made for us: the last to close the listener resets them.

        When the whole server stops, the master has closed the door already (ScoringArbiter), so this comes to an end.
        """
        was_accepting = self._accepting
        super().set_accept_enabled(enabled)
        if enabled or self.alive or not was_accepting:
            return
        for listener in self.sockets:
            if not self.retired:
                self._accept_waiting(listener)
            # Closed now and not after the drain, or the kernel goes on accepting what nobody will ever read.
            listener.close()
        self._makes_way.set()

    def _accept_waiting(self, listener: Any) -> None:  # noqa: ANN401 - gunicorn's socket wrapper
        before = -1
        # accept() of gunicorn swallows "nothing there"; it took one only if the count grew.
        while before != self.nr_conns:
            before = self.nr_conns
            self.accept(listener)

    def murder_pending(self) -> None:
        """At the end, connections that never sent anything are closed instead of waited for."""
        if not self.alive:
            for connection in self.pending_conns:
                connection.timeout = min(connection.timeout, monotonic())
        super().murder_pending()

    def murder_keepalived(self, force: bool = False) -> None:
        if self.retired:
            for connection in self.keepalived_conns:
                connection.timeout = min(connection.timeout, monotonic() + _LINGER_S)
        super().murder_keepalived(force)

    def end_now(self, code: int) -> None:
        """Leave without Python's own clean-up, which would wait for threads that do not end."""
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
