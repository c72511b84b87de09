"""How much memory this process may really use (the cgroup's limit, not the host's), and giving back what it does not."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")
# From mallopt(3). Blocks from this size on are mapped one by one and return to the system when they are freed. Left alone, glibc
# raises that size to that of the largest block ever freed, up to 32 MiB, and then keeps weights' and batches' holes for ever.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 2**20
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 2**22


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


def return_large_blocks() -> None:
    """Have the C library give large blocks back when they are freed; before there are threads.

    Bodies and runs' values up to 4 MiB stay on the heap, which costs no page faults, and so do more than a mebibyte at its end.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def give_back() -> None:
    """Return freed memory to the system now. glibc keeps it otherwise; C libraries without such a call are left to themselves."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
