"""Whose tokens are good: modules of the desired state, and for a while those that have just left it.

A module that is taken away may still say what it has to say while it is stopped, and one that runs when an agent starts may be
about to be stopped. So nobody is refused within ``LEAVING_S`` of either. As long as there is no desired state nobody is refused:
modules that outlived a lost state folder deliver what they have.
"""

from __future__ import annotations

from collections.abc import Collection

from hedgerow.clock import Clock

LEAVING_S = 600.0
# More than any deployment has; who changes them all the time loses the grace of those that left first.
_LEFT_MAX = 4096


class Admission:
    """Thread-safe: readers see one state or the next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun_s = clock.monotonic_s()
        self._wanted: frozenset[str] | None = None
        self._left: dict[str, float] = {}
        self._stop_s = 0.0

    def follow(self, modules: Collection[str], longest_stop_s: float) -> None:
        """These are the modules of the desired state in force; the longest of them takes ``longest_stop_s`` to stop."""
        now_s = self._clock.monotonic_s()
        left = {name: until_s for name, until_s in self._left.items() if until_s > now_s}
        for name in (self._wanted or frozenset()).difference(modules):
            left[name] = now_s + LEAVING_S + self._stop_s
        self._left = dict(list(left.items())[-_LEFT_MAX:])
        self._stop_s = longest_stop_s
        self._wanted = frozenset(modules)

    def admits(self, module: str) -> bool:
        """Whether this module's token is good now."""
        wanted = self._wanted
        if wanted is None or module in wanted:
            return True
        now_s = self._clock.monotonic_s()
        return now_s < max(self._begun_s + LEAVING_S, self._left.get(module, 0.0))
