"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Fast enough to measure "back within one second", slow enough to leave the two cores to what is waited for.
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1


def wait_for(predicate: Callable[[], T], *, timeout_s: float = 30.0, what: str) -> T:
    """The first truthy value of ``predicate``; after ``timeout_s`` an AssertionError that names ``what``.

    Exceptions of the predicate pass through: a predicate that must tolerate an error says so itself.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}; the last look gave {value!r}")
        time.sleep(pause_s)
        pause_s = min(_LONGEST_PAUSE_S, pause_s * 1.5)


def free_port() -> int:
    """A TCP port on loopback that nothing listened on a moment ago. Only for programs that cannot bind port 0 themselves.

    Test processes that run beside each other (pytest-xdist) share the ports, in pairs because Linux gives out only even or only
    odd ones for a while, so none takes what another found.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port // 2 % workers == own:
            return port


def accepts_connections(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens there now."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False
