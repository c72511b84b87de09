"""How much memory this process may really use: the cgroup's limit, not the host's."""

from __future__ import annotations

import os
from pathlib import Path

_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")


def memory_bytes(v2: Path = _V2, v1: Path = _V1) -> int:
    """The smaller of the machine's memory and the cgroup's limit. A container sees its own cgroup as the root."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in (v2 / "memory.max", v1 / "memory.limit_in_bytes"):
        try:
            # "max" is no number: no limit.
            return min(machine, int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return machine
