"""How many cores this process may really use: the cgroup's CPU limit and the affinity mask, not the host's count."""

from __future__ import annotations

import math
import os
from pathlib import Path

_V2 = Path("/sys/fs/cgroup")
_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def core_count(root: Path = _V2) -> int:
    """At least 1. A limit of 1.5 cores counts as 2: threads that wait for each other need both."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cgroup_limit(root)
    return max(1, min(allowed, math.ceil(limit))) if limit is not None else max(1, allowed)


def cgroup_limit(root: Path = _V2) -> float | None:
    """Cores that the cgroup grants; None without a limit. A container sees its own cgroup as the root."""
    try:
        quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = int(_V1_QUOTA.read_text(encoding="ascii"))
        return limit / int(_V1_PERIOD.read_text(encoding="ascii")) if limit > 0 else None
    except (OSError, ValueError):
        return None
