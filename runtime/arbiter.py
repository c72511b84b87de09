"""gunicorn's master, taught three things: to close without cutting, to replace workers only once the new ones answer, and to stop
trying when a model ends every process that loads it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import signal
import socket
import struct
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

_log = logging.getLogger("hedgerow.runtime")

_SO_ATTACH_FILTER = 26
# Workers in a row that died while they loaded, nobody else answering, before the master gives up.
_MOST_EARLY_DEATHS = 3


class ScoringArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """The master process. ``app`` is a runtime.server.ScoringServer."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - gunicorn's signature
        # Workers up to this age make way once as many younger ones answer.
        self._old_age: int | None = None
        self._early_deaths = 0
        super().__init__(app)

    def stop(self, graceful: bool = True) -> None:
        for listener in self.LISTENERS:
            refuse_connections(listener)
        super().stop(graceful)

    def reload(self) -> None:
        """SIGHUP: start new workers beside the old ones. gunicorn's own way ends the old ones while the new still load."""
        if self._old_age is not None:
            _log.warning("a reload is under way already; this one is not begun")
            return
        if not self.app.look_again():
            return
        self._old_age = self.worker_age
        for _ in range(self.num_workers):
            self.spawn_worker()

    def handle_usr2(self) -> None:
        """gunicorn would start itself anew beside the old master, with arguments that are not its own here."""
        _log.warning("SIGUSR2 has no effect; SIGHUP loads everything anew without a pause")

    def manage_workers(self) -> None:
        if self._old_age is None:
            super().manage_workers()
            return
        old = [pid for pid, worker in self.WORKERS.items() if worker.age <= self._old_age]
        ready = [worker for worker in self.WORKERS.values() if worker.age > self._old_age and self.app.is_ready(worker)]
        if len(ready) >= self.num_workers or not old:
            self._old_age = None
            for pid in old:
                self.kill_worker(pid, signal.SIGTERM)

    def reap_workers(self) -> None:
        while True:
            try:
                super().reap_workers()
            except HaltServer as halt:
                if not any(self.app.is_ready(worker) for worker in self.WORKERS.values()):
                    raise
                _log.error("a new worker could not start (%s); those that were there go on", halt.reason)
                self._old_age = None
            else:
                return

    def died(self, *, was_ready: bool) -> None:
        """A worker ended (told by its exit hook). Raises HaltServer when starting others is no use."""
        self._early_deaths = 0 if was_ready else self._early_deaths + 1
        if self._early_deaths >= _MOST_EARLY_DEATHS and self._old_age is None:
            reason = "The process that loads the model dies each time; the lines above show how"
            _log.critical("%s. Try the model with: python -m runtime.prove", reason)
            raise HaltServer(reason, 3)


def refuse_connections(listener: Any) -> None:  # noqa: ANN401 - gunicorn's socket wrapper
    """Let the kernel drop new connections while the workers accept those that are complete.

    Otherwise a connection that completes between a worker's last accept and its close is reset, and a request is lost. A
    dropped caller tries again after a second, and is then refused properly. Linux only; elsewhere the gap stays.
    """
    # struct sock_fprog with one instruction: BPF_RET | BPF_K, 0 bytes of the packet are kept.
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
