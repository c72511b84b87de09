"""When modules last said by themselves that they are well: by ``POST /heartbeat`` at the local port, or through the local hub.

Whoever takes a heartbeat has authenticated the module and calls ``on_heartbeat``; ``probing.py`` asks how long ago it was.
"""

from __future__ import annotations

import threading

from hedgerow.clock import Clock

# Only modules of this device have tokens, but a device may see many of them over the years.
MODULES_MAX = 1024


class Heartbeats:
    """The last heartbeat of each module, in monotonic seconds. Thread-safe, never written to a disk."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}

    def on_heartbeat(self, module: str) -> None:
        """A module has said that it is well."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            # Moved to the end, so that the first is the one that has been silent longest.
            self._last.pop(module, None)
            self._last[module] = now_s
            if len(self._last) > MODULES_MAX:
                del self._last[next(iter(self._last))]

    def since_s(self, module: str, after_s: float) -> float | None:
        """Seconds since the last heartbeat, None when there was none after ``after_s`` (monotonic)."""
        with self._lock:
            last_s = self._last.get(module)
        return None if last_s is None or last_s < after_s else self._clock.monotonic_s() - last_s
