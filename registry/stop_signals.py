"""When a role of the control plane should end: SIGTERM, SIGINT, or the end of standard input (its parent is gone)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading

_STANDARD_INPUT = 0


class StopSignals:
    """Made by a composition root in the main thread; ``fileno`` is readable from the moment the process should end."""

    def __init__(self, *, watch_parent: bool) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.request())
        if watch_parent:
            threading.Thread(target=self._follow_input, name="watch-parent", daemon=True).start()

    def request(self) -> None:
        """Ask this process to end."""
        # A full pipe says so already.
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"!")

    def requested(self) -> bool:
        return self.wait(0.0)

    def wait(self, timeout_s: float | None) -> bool:
        """Block until the process should end (True), at most ``timeout_s`` (False then)."""
        return bool(select.select([self._read], [], [], timeout_s)[0])

    def fileno(self) -> int:
        return self._read

    def _follow_input(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(_STANDARD_INPUT, 4096):
                pass
        self.request()
