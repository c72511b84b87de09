"""How long to wait before trying again. Pure: time and chance are arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential delays with a cap and jitter; the count is never capped, only the delay.

    The first retry (``failures == 0``) waits ``immediate_s``, later ones ``first_s * factor**(failures - 1)`` up to
    ``cap_s``, each spread by ``±jitter`` (a fraction) so that a fleet does not come back in step.
    """

    first_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 60.0
    jitter: float = 0.2
    immediate_s: float = 0.0

    def delay_s(self, failures: int, random: Callable[[], float]) -> float:
        """Seconds to wait after ``failures`` failures in a row; ``random`` gives [0, 1)."""
        if failures <= 0:
            return self.immediate_s
        # Exponents past 64 only overflow floats; the cap has long been reached by then.
        raw = min(self.cap_s, self.first_s * self.factor ** min(failures - 1, 64))
        return raw * (1.0 + self.jitter * (2.0 * random() - 1.0))
