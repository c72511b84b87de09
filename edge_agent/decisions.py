"""Every decision with its reason: a short file of JSON lines, and the newest for reports.

Append-only and compacted, so that a decision costs one small write; a line torn by a power cut is skipped.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from hedgerow.atomic_write import atomic_write
from hedgerow.clock import Clock
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.status import Decision
from hedgerow.errors import HedgerowError

KEPT = 200
log = logging.getLogger(__name__)


def read_decisions(path: Path) -> list[Decision]:
    """The decisions on disk, oldest first."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    decisions = []
    for line in lines:
        try:
            decisions.append(decode(line, Decision))
        except HedgerowError:
            log.debug("skipped a torn line of %s", path)
    return decisions[-KEPT:]


class DecisionLog:
    """Thread-safe. ``on_new`` is called after each decision; whoever reports them sets it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self.on_new: Callable[[], None] = _nobody_listens
        self._lock = threading.Lock()
        self._recent = deque(read_decisions(path), maxlen=KEPT)
        self._lines = 2 * KEPT  # the first write compacts

    def record(self, module: str | None, action: str, reason: str) -> None:
        """Add a decision; a disk that cannot take it costs the line, never the action."""
        decision = Decision(at=self._clock.now(), module=module, action=action, reason=reason)
        log.info("%s %s: %s", action, module or "device", reason)
        with self._lock:
            self._recent.append(decision)
            try:
                self._write(decision)
            except OSError as problem:
                log.warning("a decision could not be written: %s", problem)
        self.on_new()

    def newest(self, count: int) -> list[Decision]:
        """The newest ``count`` decisions, oldest first."""
        with self._lock:
            return list(self._recent)[-count:]

    def _write(self, decision: Decision) -> None:
        if self._lines >= 2 * KEPT:
            atomic_write(self._path, b"".join(encode(kept) + b"\n" for kept in self._recent), mode=0o600)
            self._lines = len(self._recent)
            return
        with self._path.open("ab") as file:
            file.write(encode(decision) + b"\n")
        self._lines += 1


def _nobody_listens() -> None:
    """Decisions are taken before there is a reporter, too."""
