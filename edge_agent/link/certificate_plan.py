"""When a device's certificate is renewed. Pure: the wall clock is an argument and may be wrong, so it is never all that counts.

A device whose clock is behind goes by the time that passed since it has the certificate; one whose clock is ahead renews, but
not again and again: what it was given a moment ago is not renewed, whatever the clock says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

# Of its life; a fleet that was enrolled in one hour does not renew in one.
RENEW_SHARE, SPREAD_SHARE = 2 / 3, 0.05
# Of its life: nothing that was issued to this process is renewed earlier.
LEAST_SHARE = 0.1
# A clock that says less than this before the certificate's beginning was never set.
BEHIND = timedelta(days=1)


@dataclass(frozen=True)
class Validity:
    """``begins`` and ``ends`` as they stand in the certificate; ``spread`` in [0, 1) is its own, and always the same."""

    begins: datetime
    ends: datetime
    spread: float

    @property
    def renewed_after_s(self) -> float:
        """Seconds of its life after which it is renewed."""
        return (self.ends - self.begins).total_seconds() * (RENEW_SHARE - SPREAD_SHARE * self.spread)


def wait_s(held: Validity | None, now: datetime, held_s: float, *, fresh: bool) -> float:
    """Seconds until there should be another one; 0: now. ``held_s``: for how long this process has had it; ``fresh``: it was
    issued to this process."""
    if held is None:
        return 0.0
    if now < held.begins - BEHIND:
        return max(0.0, held.renewed_after_s - held_s)
    by_clock_s = (held.begins - now).total_seconds() + held.renewed_after_s
    least_s = (held.ends - held.begins).total_seconds() * LEAST_SHARE - held_s if fresh else 0.0
    return max(0.0, by_clock_s, least_s)
