"""What the door counts, wherever that is kept (metrics.Slot in a scoring server)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Count(Protocol):
    """A number that grows."""

    def add(self, amount: float) -> None: ...


class Uncounted:
    """Where nobody wants to know."""

    def add(self, amount: float) -> None:
        pass


@dataclass(frozen=True)
class Traffic:
    """Bytes that came and went, and connections made."""

    received: Count
    sent: Count
    opened: Count


NO_TRAFFIC = Traffic(Uncounted(), Uncounted(), Uncounted())
