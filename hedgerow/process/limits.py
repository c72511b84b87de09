"""What the kernel calls the limits of a ProcessSpec, and which of them this process may ask for."""

from __future__ import annotations

import resource
from collections.abc import Mapping

from hedgerow.process.spec import ResourceLimits

RLIMIT_NAMES: Mapping[str, str] = {
    "memory_bytes": "RLIMIT_DATA",
    "open_files": "RLIMIT_NOFILE",
    "cpu_time_s": "RLIMIT_CPU",
    "processes": "RLIMIT_NPROC",
    "file_size_bytes": "RLIMIT_FSIZE",
}


def within_ours(limits: ResourceLimits) -> ResourceLimits:
    """Nobody but root can raise a limit above its own hard one, and asking for it would fail the start."""
    values = {
        field: _least(getattr(limits, field), resource.getrlimit(getattr(resource, name))[1])
        for field, name in RLIMIT_NAMES.items()
    }
    return ResourceLimits(**values)


def _least(wanted: int | None, hard: int) -> int | None:
    return wanted if wanted is None or hard == resource.RLIM_INFINITY else min(wanted, hard)
