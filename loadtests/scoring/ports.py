"""Ports for servers that must be told theirs: held until just before the start, where nobody else looks for one.

Servers beside ours want three (HTTP, gRPC, metrics) and end, or hang, when one of them is taken. A port that the kernel
gives out (bind to 0) has neighbours that it gives to the next connection; below that range nothing is given out by itself.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

_LOWEST = 12_000
_USUALLY = 32_768
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoPorts(RuntimeError):
    """No row of free ports was found."""


class HeldPorts:
    """``count`` ports in a row, bound on all addresses but not listening, until the context ends."""

    def __init__(self, count: int = 3, chance: random.Random | None = None) -> None:
        self._count, self._chance = count, chance or random.Random()
        self._held = ExitStack()

    def __enter__(self) -> tuple[int, ...]:
        for _ in range(200):
            first = self._chance.randrange(_LOWEST, lowest_given_out() - self._count)
            ports = tuple(range(first, first + self._count))
            if self._hold(ports):
                return ports
        raise NoPorts(f"no {self._count} free ports in a row between {_LOWEST} and {lowest_given_out()}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.close()

    def _hold(self, ports: tuple[int, ...]) -> bool:
        with ExitStack() as taken:
            for port in ports:
                # Without SO_REUSEADDR, so that a port with somebody's connections on it counts as taken.
                one = taken.enter_context(socket.socket())
                try:
                    one.bind(("0.0.0.0", port))
                except OSError:
                    return False
            self._held = taken.pop_all()
        return True


def lowest_given_out() -> int:
    """First port that the kernel gives to whoever asks for any; its usual one where nearly all are given out."""
    told = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else _USUALLY
    return told if told > _LOWEST + 1000 else _USUALLY
