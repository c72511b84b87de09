"""Whose batch goes next. Pure.

The most urgent stream goes first; among equals live data before backfill, then whoever has less on its way. So that the others
do not starve, every ``SHARE``-th batch is of the stream that has waited longest, whatever its urgency.

Backfill (messages older than the session) can be limited to a rate; what the limit leaves is for the other streams. Within a
stream order is by sequence, so its own live messages wait behind its backfill: what must not wait belongs into a stream of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHARE = 8
# Backfill goes out in portions of so many seconds' worth at least, or batches would become tiny.
_PORTION_S = 0.25


@dataclass(frozen=True)
class Candidate:
    """A stream with something to send; ``urgency`` is 0 (first) to 10."""

    stream: str
    urgency: int
    backfill: bool
    in_flight: int


class Turns:
    """Remembers who was served when. Not thread-safe."""

    def __init__(self) -> None:
        self._count = 0
        self._served: dict[str, int] = {}

    def next(self, candidates: Sequence[Candidate]) -> Candidate:
        """The one of ``candidates`` (not empty) that sends now."""
        self._count += 1
        if self._count % SHARE == 0:
            chosen = min(candidates, key=lambda one: (self._served.get(one.stream, 0), one.urgency, one.stream))
        else:
            chosen = min(candidates, key=lambda one: (one.urgency, one.backfill, one.in_flight, one.stream))
        self._served[chosen.stream] = self._count
        return chosen


class RateLimit:
    """At most ``per_s`` messages in a second, on average; 0: no limit."""

    def __init__(self, per_s: float, most: int) -> None:
        self._per_s = per_s
        self._portion = max(1.0, min(float(most), per_s * _PORTION_S))
        self._tokens = self._portion
        self._at_s: float | None = None

    def room(self, now_s: float, most: int) -> int:
        """How many messages may go now, up to ``most``; 0 when it is too early."""
        if not self._per_s:
            return most
        passed_s = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._at_s = now_s
        self._tokens = min(self._tokens + passed_s * self._per_s, max(self._portion, self._per_s))
        return min(most, int(self._tokens)) if self._tokens >= self._portion else 0

    def used(self, messages: int) -> None:
        """So many went."""
        self._tokens -= messages

    def again_at_s(self) -> float | None:
        """When there is room again; None when there is, or before the first question."""
        if not self._per_s or self._at_s is None or self._tokens >= self._portion:
            return None
        # A little later, so that rounding does not wake anybody a moment too early.
        return self._at_s + (self._portion - self._tokens) / self._per_s + 0.001
