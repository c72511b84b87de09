"""Which process a pid means: a pid alone is recycled, a pid with its start time is not (within one boot)."""

from __future__ import annotations

from hedgerow.process.procfs import read_stat


def start_time_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat), None when there is none."""
    stat = read_stat(pid)
    return None if stat is None else stat.start_time_ticks


def is_alive(pid: int, start_time_ticks: int) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    stat = read_stat(pid)
    return stat is not None and not stat.ended and stat.start_time_ticks == start_time_ticks
