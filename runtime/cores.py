"""How many cores this process may really use: its cgroups' CPU limits and the affinity mask, not the host's count."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def core_count(root: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """At least 1. A limit of 1.5 cores counts as 2: threads that wait for each other need both."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cgroup_limit(root, membership)
    return max(1, min(allowed, math.ceil(limit))) if limit is not None else max(1, allowed)


def cgroup_limit(root: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """Cores that the cgroups grant: the least of the process's own group and those above it; None without a limit.

    A container mostly sees its own group as the root; a service of systemd has its own path below it.
    """
    limits = [*_limits_v2(root, membership), *_limits_v1(root, membership)]
    return min(limits, default=None)


def _limits_v2(root: Path, membership: Path) -> Iterator[float]:
    for folder in _folders(root, _own_path(membership, "")):
        try:
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            if quota != "max":
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue


def _limits_v1(root: Path, membership: Path) -> Iterator[float]:
    own = _own_path(membership, "cpu")
    for mount in ("cpu", "cpu,cpuacct"):
        for folder in _folders(root / mount, own):
            try:
                quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
                if quota > 0:
                    yield quota / int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
            except (OSError, ValueError, ZeroDivisionError):
                continue


def _own_path(membership: Path, controller: str) -> PurePosixPath:
    """The process's group in the hierarchy of a controller; "" is version 2's only one. ``/`` where the kernel does not say."""
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return PurePosixPath("/")
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") and path.startswith("/"):
            return PurePosixPath(path)
    return PurePosixPath("/")


def _folders(root: Path, own: PurePosixPath) -> Iterator[Path]:
    """The root and every group from it down to our own. Those that a container cannot see do not exist there."""
    folder = root
    yield folder
    for part in own.parts[1:]:
        # Groups beside our own namespace are shown as "..".
        if part == "..":
            continue
        folder /= part
        yield folder
