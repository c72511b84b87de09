"""Feeds systemd's watchdog as long as the agent's loops really go round; a hung one is never covered up.

A loop counts its rounds. The watchdog wakes each of them, looks a little later whether all counts have grown since it last
fed, and only then feeds. Whatever hangs (a lock, a disk, a bug), systemd ends the agent after its time and starts a new one,
which adopts the modules.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_agent.service.notify import Notifier

# So many looks fit into the time that systemd grants.
LOOKS = 5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loop:
    """A thread that must go round: ``rounds`` grows with each round, ``wake`` asks for one soon."""

    name: str
    rounds: Callable[[], int]
    wake: Callable[[], None]


class Watchdog:
    """``timeout_s`` is the time that systemd grants; ``status`` gives the line to show."""

    def __init__(self, notifier: Notifier, loops: Sequence[Loop], timeout_s: float, status: Callable[[], str]) -> None:
        self._notifier = notifier
        self._loops = loops
        self._period_s = timeout_s / LOOKS
        self._status = status
        self._stopped = threading.Event()
        self._seen = {loop.name: loop.rounds() for loop in loops}
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to feed."""
        self._thread.start()

    def close(self) -> None:
        """Stop feeding; an end in order takes less time than systemd grants."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            for loop in self._loops:
                loop.wake()
            if self._stopped.wait(self._period_s):
                return
            self._look()

    def _look(self) -> None:
        rounds = {loop.name: loop.rounds() for loop in self._loops}
        hanging = ", ".join(name for name, count in rounds.items() if count == self._seen[name])
        if not hanging:
            self._seen = rounds
            self._notifier.alive(self._status())
        elif hanging != self._told:
            log.error("%s does not go round: the watchdog is not fed", hanging)
            self._notifier.status(f"hangs: {hanging}")
        self._told = hanging
