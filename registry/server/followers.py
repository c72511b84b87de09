"""Lets many event streams sleep on one wake-up socket: a listener thread turns wake-ups into a condition."""

from __future__ import annotations

import threading
from typing import cast

from flask import current_app

from registry.wakeups import WakeupReceiver

EXTENSION = "hedgerow.followers"
# Wake-ups may be lost (the database is the truth): everybody looks again after this long at the latest.
FALLBACK_S = 5.0
# A flood of changes wakes everybody a few times a second, not once for each.
_GATHER_S = 0.05


class Followers:
    """Counts "something changed"; waiters remember the count that they have seen, so no change falls between looks."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._turn = 0
        self._closed = False
        self._end = threading.Event()

    def listen(self, receiver: WakeupReceiver) -> None:
        """Start the listener thread; called once in the process that serves."""
        threading.Thread(target=self._run, args=(receiver,), name="wake-ups", daemon=True).start()

    @property
    def turn(self) -> int:
        """To be read *before* looking at the database."""
        return self._turn

    @property
    def closed(self) -> bool:
        return self._closed

    def wait(self, seen: int, timeout_s: float) -> None:
        """Return once the turn differs from ``seen``, or the process ends, or ``timeout_s`` has passed."""
        with self._condition:
            self._condition.wait_for(lambda: self._turn != seen or self._closed, timeout_s)

    def close(self) -> None:
        """The server stops: every stream ends now."""
        with self._condition:
            self._closed = True
            self._end.set()
            self._condition.notify_all()

    def _run(self, receiver: WakeupReceiver) -> None:
        while not self._closed:
            receiver.wait(FALLBACK_S)
            with self._condition:
                self._turn += 1
                self._condition.notify_all()
            self._end.wait(_GATHER_S)


def followers() -> Followers:
    """Those of the running app."""
    return cast(Followers, current_app.extensions[EXTENSION])
