"""One connection of a module to the local HTTP port: what came of it, what it is owed, and since when we wait for it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_agent.telemetry.http_requests import Answer, Head, Incoming

Reply = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is needed of a request before it is answered: so many bytes of its body, which ``go`` gets.

    ``go`` is called in the server's thread and must not wait; it sees to it that ``Reply`` is called once, by any thread.
    ``module`` is whose request it is, None for anybody's.
    """

    module: str | None
    length: int
    go: Callable[[bytes, Reply], None]


class Connection:
    """A state of the server's thread.

    ``waits_since_s``: we wait for the other side (for a whole head, for a whole body, to take an answer), None while it waits for
    us. ``moved_s``: when it last sent or took something. ``leaves_s``: it was told the end, and is dropped at the latest then.
    """

    __slots__ = (
        "answering",
        "ended",
        "fd",
        "head",
        "held",
        "incoming",
        "leaves_s",
        "left_over",
        "local_host",
        "mask",
        "module",
        "moved_s",
        "output",
        "sock",
        "waits_since_s",
        "wanted",
    )

    def __init__(self, sock: socket.socket, now_s: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.local_host = str(sock.getsockname()[0])
        self.incoming = Incoming()
        self.output = bytearray()
        self.head: Head | None = None
        self.wanted: Wanted | None = None
        self.answering = False
        self.ended = False
        self.held = 0
        self.module: str | None = None
        self.mask = 0
        self.moved_s = now_s
        self.waits_since_s: float | None = now_s
        self.leaves_s: float | None = None
        self.left_over = 0

    @property
    def busy(self) -> bool:
        """True while no further request of it is looked at."""
        return self.answering or bool(self.output) or self.leaves_s is not None


def who_makes_room(connections: Iterable[Connection], before_s: float, *, full: bool) -> list[Connection]:
    """Those that said nothing since ``before_s`` and have to end; unless all places are taken (``full``), only holders of room.

    All of those at once of which nobody knows whose they are: who opens such ones again and again has also filled the
    kernel's backlog. Of the others the one longest silent.
    """
    silent = [
        (since_s, known.fd, known)
        for known in connections
        if (since_s := known.waits_since_s) is not None and since_s <= before_s and (full or known.held)
    ]
    nameless = [known for _, _, known in silent if known.module is None]
    return nameless or [known for _, _, known in sorted(silent)[:1]]
