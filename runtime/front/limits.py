"""How much a caller may send, how long it may take, and how much all callers' bytes together may take."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.memory import memory_bytes
from runtime.settings import RuntimeSettings

# llhttp has no limits of its own. Eight kibibytes are usual for a line; heads of 64 KiB carry any real set of tokens.
HEAD_BYTES = 65_536
TARGET_BYTES = 16_384
HEADER_COUNT = 256
# Requests of one connection that wait behind the one being answered before no more is read.
PIPELINED = 16
# Parsed without a look at how many requests that made.
SLICE_BYTES = 16_384
# Of a large body, before other connections get their turn: half a millisecond; one look brings twice as much at most.
IN_A_ROW_BYTES = 131_072
# Bodies up to this are not counted: the queue's length bounds them.
SMALL_BODY_BYTES = 4096
# Larger answers are not copied behind their head.
JOINED_BYTES = 65_536
# A caller that takes nothing off its connection for this long is cut off.
SEND_TIMEOUT_S = 30.0
KEEPALIVE_S = 75.0
# After the last answer what still comes is read and dropped: closing on unread bytes would destroy the answer on its way.
# So long in all, and so long without a byte.
LINGER_S = 30.0
LINGER_SILENT_S = 2.0


@dataclass(frozen=True)
class HttpLimits:
    """Limits of every connection; ``buffered_bytes`` is for all of a worker's together."""

    body_bytes: int
    receive_timeout_s: float
    keepalive_s: float = KEEPALIVE_S
    send_timeout_s: float = SEND_TIMEOUT_S
    linger_s: float = LINGER_S
    linger_silent_s: float = LINGER_SILENT_S
    buffered_bytes: int = 2**40

    @classmethod
    def of(cls, settings: RuntimeSettings, *, fronts: int = 1) -> HttpLimits:
        """A container's limits for one of its ``fronts``."""
        # A quarter: reading JSON takes several times its bytes. But one body of the largest size must always fit.
        buffered_bytes = settings.max_buffered_bytes or max(memory_bytes() // 4, settings.max_body_bytes)
        return cls(
            body_bytes=settings.max_body_bytes,
            receive_timeout_s=settings.receive_timeout_ms / 1000,
            buffered_bytes=-(-buffered_bytes // fronts),
        )


class Buffered:
    """Bytes of bodies that wait or are scored, and of answers that their callers do not take."""

    __slots__ = ("held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def has_room(self, count: int) -> bool:
        return self.held + count <= self.most

    def take(self, count: int) -> bool:
        """Count bytes that are there already; false when they are too many, and must go."""
        self.held += count
        return self.held <= self.most

    def give(self, count: int) -> None:
        self.held -= count
