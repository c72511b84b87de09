"""What the hub noticed about devices: counted, logged seldom, recorded as fleet events seldom. One place for all of it."""

from __future__ import annotations

import logging
from collections import Counter

from registry.hub.seldom import Seldom
from registry.store.fleet import NewEvent

log = logging.getLogger("registry.hub")

_PERIOD_S = 60.0
_MAX_PENDING = 1_000


class Notes:
    """``counts`` are since the start. Events wait in ``pending`` until the caller has committed them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.pending: list[NewEvent] = []
        self._seldom = Seldom(_PERIOD_S)

    def count(self, kind: str, reason: str, now_s: float, number: int = 1) -> None:
        """Something that no enrolled device is known to be responsible for."""
        if number == 0:
            return
        self.counts[kind] += number
        if self._seldom.allows(kind, now_s):
            log.warning("%s (%s, %d so far)", reason, kind, self.counts[kind])

    def event(self, kind: str, device_uuid: str, device: str, reason: str, now_s: float) -> None:
        """Something about a device that its operator should know. ``reason`` is a sentence without its end."""
        self.counts[kind] += 1
        times = self._seldom.allows(f"{kind} {device_uuid}", now_s)
        if not times:
            return
        again = f" ({times} times since the last such event)" if times > 1 else ""
        log.warning("Device %s: %s%s", device, reason, again)
        if len(self.pending) < _MAX_PENDING:
            self.pending.append(NewEvent(device_uuid, kind, reason + again, device))
