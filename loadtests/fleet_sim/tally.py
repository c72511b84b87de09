"""What all simulated devices count together, and how it is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec

# Times beyond the last one are counted there; steps of 1 ms up to 5 s, for percentiles without keeping every value.
_LONGEST_MS = 60_000


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a run. Latencies run from the module's message to the hub's answer after its commit, in seconds."""

    devices: int
    seconds: float
    sent_per_s: float
    stored_per_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    made: int
    acknowledged: int
    lost: int
    repeats: int
    reconnects: int
    contradictions: int
    hellos: int
    reports: int
    refusals: dict[str, int]


@dataclass
class Tally:
    """One thread counts."""

    made: int = 0
    acknowledged: int = 0
    batches: int = 0
    repeats: int = 0
    hellos: int = 0
    reports: int = 0
    reconnects: int = 0
    contradictions: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    times_ms: Counter[int] = field(default_factory=Counter)

    def stored(self, took_s: float) -> None:
        """A message was acknowledged so long after it had been made."""
        self.acknowledged += 1
        self.times_ms[min(_LONGEST_MS, int(took_s * 1000))] += 1

    def percentile_s(self, share: float) -> float:
        """0.0 when nothing was counted."""
        wanted, seen = share * sum(self.times_ms.values()), 0
        for took_ms in sorted(self.times_ms):
            seen += self.times_ms[took_ms]
            if seen >= wanted:
                return (took_ms + 1) / 1000
        return 0.0

    def begin(self) -> None:
        """Times and rates count from here (what connecting brought is no figure); sums go on."""
        self.times_ms.clear()
