"""Time enters a process here and nowhere else; planners get ``now`` as an argument."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What a composition root hands to the parts that need time."""

    def now(self) -> datetime:
        """Wall-clock time, timezone-aware UTC; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back within one boot; meaningless across boots."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()


def unix_ms(moment: datetime) -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Id of this boot of the kernel; tells whether a stored monotonic time still means anything."""
    return path.read_text(encoding="ascii").strip()
