"""Puts a process behind everything else on the machine: for what runs for the sake of others."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# The first that the kernel takes when memory runs out: rather this one than a module that works.
_OOM_SCORE = 1000


_NICEST = 19


def stand_back(pid: int, nice: int) -> None:
    """Right after its start, by so many steps: what it starts itself inherits both. Best effort."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, min(_NICEST, os.getpriority(os.PRIO_PROCESS, pid) + nice))
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(_OOM_SCORE), encoding="ascii")
