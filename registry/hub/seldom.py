"""How often something may be said that strangers can cause: logs and events stay small however much is thrown at the hub."""

from __future__ import annotations

from collections import OrderedDict

_MAX_KEYS = 10_000


class Seldom:
    """Lets the first of its kind through, then one each ``period_s``; counts the others."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._kinds: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def allows(self, kind: str, now_s: float) -> int:
        """0: stay silent. Otherwise how many there were since the last time, this one included. ``now_s`` is monotonic."""
        last = self._kinds.get(kind)
        if last is not None and now_s - last[0] < self._period_s:
            self._kinds[kind] = (last[0], last[1] + 1)
            return 0
        self._kinds[kind] = (now_s, 0)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > _MAX_KEYS:
            self._kinds.popitem(last=False)
        return 1 if last is None else last[1] + 1
