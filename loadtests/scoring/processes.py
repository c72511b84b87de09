"""What /proc tells of a server's processes, and of how much of the processors other machines on the same host took."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hedgerow.process.errors import ProcessGone
from hedgerow.process.memory import pss_bytes

_TICKS_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def family(root: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int(_after_name((entry / "stat").read_text())[1])
    return descendants(root, parents)


def descendants(root: int, parents: Mapping[int, int]) -> list[int]:
    """``root`` and those whose parents lead to it."""
    found = []
    for pid in parents:
        at = pid
        while at in parents and at != root:
            at = parents[at]
        if at == root:
            found.append(pid)
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """Processor time of these processes so far; those that are gone count nothing."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = _after_name(Path(f"/proc/{pid}/stat").read_text())
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_S


def rss_mb(pids: Sequence[int]) -> float:
    """Resident memory of these processes, pages shared between them counted in each."""
    pages = 0
    for pid in pids:
        with suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * _PAGE_BYTES / 1e6


def pss_mb(pids: Sequence[int]) -> float:
    """Proportional set size of these processes together."""
    total = 0
    for pid in pids:
        with suppress(ProcessGone):
            total += pss_bytes(pid)
    return total / 1e6


@dataclass(frozen=True)
class Processors:
    """All processors' time since boot, in ticks."""

    total: int
    idle: int
    steal: int

    @classmethod
    def now(cls) -> Processors:
        return cls.parse(Path("/proc/stat").read_text())

    @classmethod
    def parse(cls, text: str) -> Processors:
        """From the first line of /proc/stat: user nice system idle iowait irq softirq steal (guest time is in user's)."""
        ticks = [int(field) for field in text.split("\n", 1)[0].split()[1:9]]
        return cls(sum(ticks), ticks[3] + ticks[4], ticks[7])

    def stolen_since(self, before: Processors) -> float:
        """Share of the processors' time that other machines took, 0 to 1."""
        return (self.steal - before.steal) / max(self.total - before.total, 1)

    def others_since(self, before: Processors, known_s: float) -> float:
        """Share that programs of this machine took beyond the ``known_s`` seconds of those that are measured."""
        total = max(self.total - before.total, 1)
        used = total - (self.idle - before.idle) - (self.steal - before.steal)
        return max(used - known_s * _TICKS_S, 0.0) / total


def _after_name(stat: str) -> list[str]:
    # The program's name stands in brackets and may hold anything.
    return stat.rpartition(")")[2].split()
