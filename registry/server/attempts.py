"""Bounds wrong guesses at what strangers may guess at: so many from one address, then none is looked at for a while.

Secrets here are too long to be guessed; this keeps those who try from keeping the database busy. The table is bounded: who
comes from more addresses than it holds has the oldest of them forgotten.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import cast

from flask import current_app

from hedgerow.clock import Clock
from registry.identity.errors import TooManyWrongKeys

EXTENSION = "hedgerow.attempts"
# A line of new devices behind one address with one wrong key tries now and then; a guesser does all the time.
WRONG_MAX = 120
PERIOD_S = 60.0
_ADDRESSES_MAX = 4096


class Attempts:
    """Wrong attempts by address, each address in periods of its own. For any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Address → when its period began, how many wrong ones came in it; the one that began last at the end.
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, remote: str) -> None:
        """Raises TooManyWrongKeys."""
        with self._lock:
            if self._count(remote) >= WRONG_MAX:
                raise TooManyWrongKeys(remote=remote)

    def note_wrong(self, remote: str) -> None:
        """One wrong attempt came from ``remote``."""
        with self._lock:
            count = self._count(remote)
            if count == 0:
                self._wrong[remote] = (self._clock.monotonic_s(), 0)
                self._wrong.move_to_end(remote)
                while len(self._wrong) > _ADDRESSES_MAX:
                    self._wrong.popitem(last=False)
            self._wrong[remote] = (self._wrong[remote][0], count + 1)

    def _count(self, remote: str) -> int:
        began_s, count = self._wrong.get(remote, (float("-inf"), 0))
        return count if self._clock.monotonic_s() - began_s < PERIOD_S else 0


def of_app() -> Attempts:
    """Those of the running app."""
    return cast(Attempts, current_app.extensions[EXTENSION])
