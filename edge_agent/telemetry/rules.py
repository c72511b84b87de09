"""What applies to each stream: the deployment's policy over the device's settings. Values and pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hedgerow.contracts.edge import OverflowPolicy, StreamPolicy, TelemetryPolicy

# Priorities are 0 (most urgent) to 9; whoever has none comes last.
LEAST_URGENT = 10
REMEMBERED_IDS = 100_000
# This part of the quota is kept for messages of priority 0, but never more than so much.
_RESERVE_PART = 16
_RESERVE_MAX_BYTES = 16_000_000
_NO_POLICY = StreamPolicy()


@dataclass(frozen=True)
class Limits:
    """Bytes kept at most in all, and of what the hub has already; what happens when all is taken."""

    quota_bytes: int
    replay_bytes: int
    overflow: OverflowPolicy = "drop-oldest"

    @property
    def ids_max(self) -> int:
        """Idempotency keys remembered; their table stays below a tenth of the quota."""
        return min(REMEMBERED_IDS, max(1000, self.quota_bytes // 2000))

    def quota_for(self, urgency: int) -> int:
        """Up to where messages of this urgency may fill the buffer: the last part is for priority 0."""
        reserve = min(self.quota_bytes // _RESERVE_PART, _RESERVE_MAX_BYTES)
        return self.quota_bytes if urgency == 0 else self.quota_bytes - reserve


@dataclass(frozen=True)
class Rules:
    """``priorities`` are the streams' as the routes give them; a stream's own policy comes before them."""

    limits: Limits
    policy: TelemetryPolicy = field(default_factory=TelemetryPolicy)
    priorities: Mapping[str, int | None] = field(default_factory=dict)

    def urgency(self, stream: str, stored: int | None) -> int:
        """0 (first) to 10 (last); ``stored`` is the priority with which the newest message came."""
        for found in (self._of(stream).priority, self.priorities.get(stream), stored):
            if found is not None:
                return found
        return LEAST_URGENT

    def overflow(self, stream: str) -> OverflowPolicy:
        """What happens when there is no room for the stream."""
        return self._of(stream).overflow or self.limits.overflow

    def quota_bytes(self, stream: str) -> int | None:
        """The stream's own quota."""
        return self._of(stream).quota_bytes

    def time_to_live_s(self, stream: str, own: float | None) -> float | None:
        """How long a message is worth sending; ``own`` is what it brought itself."""
        for found in (own, self._of(stream).time_to_live_s, self.policy.time_to_live_s):
            if found is not None:
                return found
        return None

    def _of(self, stream: str) -> StreamPolicy:
        return self.policy.streams.get(stream, _NO_POLICY)
