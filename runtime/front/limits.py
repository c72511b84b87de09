"""How much a caller may send, how long it may take, and the sentences that refuse more."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.settings import RuntimeSettings

# llhttp has no limits of its own. Eight kibibytes are usual for a line; heads of 64 KiB carry any real set of tokens.
HEAD_BYTES = 65_536
TARGET_BYTES = 16_384
HEADER_COUNT = 256
# Requests of one connection that wait behind the one being answered before no more is read.
PIPELINED = 16
# A caller that takes nothing off its connection for this long is cut off.
SEND_TIMEOUT_S = 30.0
KEEPALIVE_S = 75.0


@dataclass(frozen=True)
class HttpLimits:
    """Limits of every connection."""

    body_bytes: int
    receive_timeout_s: float
    keepalive_s: float = KEEPALIVE_S
    send_timeout_s: float = SEND_TIMEOUT_S

    @classmethod
    def of(cls, settings: RuntimeSettings) -> HttpLimits:
        return cls(body_bytes=settings.max_body_bytes, receive_timeout_s=settings.receive_timeout_ms / 1000)
