"""A link that can be kept down for a while: to the agent it looks like a network that is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from edge_agent.link.link import Link, LinkListener


class GatedLink:
    """See :class:`edge_agent.link.link.Link`. ``make`` gives a fresh link for each time the gate opens."""

    def __init__(self, make: Callable[[], Link]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._inner: Link | None = make()
        self._opened: tuple[LinkListener, list[str]] | None = None
        self._reopen: threading.Timer | None = None
        self._closed = False

    def open(self, listener: LinkListener, topics: Sequence[str]) -> None:
        with self._lock:
            self._opened = (listener, list(topics))
            if self._inner is not None:
                self._inner.open(listener, topics)

    def publish(self, topic: str, payload: bytes) -> bool:
        inner = self._inner
        return inner is not None and inner.publish(topic, payload)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._reopen is not None:
                self._reopen.cancel()
            if self._inner is not None:
                self._inner.close()

    def keep_down(self, seconds: float) -> None:
        """End the connection, and make none for so long; a later call begins the time anew."""
        with self._lock:
            if self._closed or self._opened is None:
                return
            if self._reopen is not None:
                self._reopen.cancel()
            inner, self._inner = self._inner, None
            if inner is not None:
                inner.close()
                self._opened[0].on_disconnected("chaos: kept offline")
            self._reopen = threading.Timer(seconds, self._let_up)
            self._reopen.daemon = True
            self._reopen.start()

    def _let_up(self) -> None:
        with self._lock:
            if self._closed or self._opened is None or self._inner is not None:
                return
            self._inner = self._make()
            self._inner.open(*self._opened)
