"""Wakes the supervisor: any number of rings before it looks are one."""

from __future__ import annotations

import threading


class Bell:
    """Rung from any thread, waited for by one."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        """Something may have changed."""
        self._event.set()

    def wait(self, timeout_s: float) -> None:
        """Return when it was rung since the last wait, or after ``timeout_s``."""
        self._event.wait(timeout_s)
        self._event.clear()
