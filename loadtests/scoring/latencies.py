"""Many latencies in little memory: counts of sizes that are one per cent apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

_STEPS = 100.0  # of one natural logarithm: neighbours are one per cent apart


class Latencies:
    """Adding one takes half a microsecond."""

    __slots__ = ("counts", "worst_s")

    def __init__(self, counts: dict[int, int] | None = None, worst_s: float = 0.0) -> None:
        self.counts = Counter(counts or {})
        self.worst_s = worst_s

    def add(self, seconds: float) -> None:
        self.counts[int(math.log(max(seconds, 1e-6) * 1e6) * _STEPS)] += 1
        self.worst_s = max(self.worst_s, seconds)

    @property
    def count(self) -> int:
        return self.counts.total()

    def percentile_ms(self, share: float) -> float:
        """The latency that this share (0 to 1) did not exceed; nan of none."""
        left = math.ceil(self.count * share)
        for step in sorted(self.counts):
            left -= self.counts[step]
            if left <= 0:
                return _ms(step)
        return math.nan

    def above(self, ms: float) -> int:
        return sum(count for step, count in self.counts.items() if _ms(step) > ms)

    @classmethod
    def together(cls, parts: Iterable[Latencies]) -> Latencies:
        whole = cls()
        for part in parts:
            whole.counts.update(part.counts)
            whole.worst_s = max(whole.worst_s, part.worst_s)
        return whole


def _ms(step: int) -> float:
    return math.exp((step + 0.5) / _STEPS) / 1000
