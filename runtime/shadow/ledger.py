"""What the comparer found so far: counts in one file, the first differing requests in another, both in its working folder.

Another pair of versions begins at nothing. Files are for their owner only; what is in them are requests.
"""

from __future__ import annotations

import base64
import logging
from collections import deque
from datetime import datetime
from pathlib import Path
from statistics import median

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.shadow import (
    COUNTS_FILE,
    DIFFERENCES_FILE,
    DIFFERENCES_MAX,
    SHOWN_BYTES_MAX,
    ShadowCounts,
    ShadowDifference,
)
from runtime.shadow.comparing import Answer, Comparison
from runtime.shadow.taps import Tapped

# Flash wears out: counts are written this often at most.
KEEP_S = 5.0
_NEWEST = 256
_log = logging.getLogger("hedgerow.runtime.shadow")


class Ledger:
    """Counts of ``pair``, taken up again where the last comparer of the same pair stopped."""

    def __init__(self, folder: Path, pair: str) -> None:
        self._counts_file, self._differences_file = folder / COUNTS_FILE, folder / DIFFERENCES_FILE
        self.counts = _kept(self._counts_file, pair)
        self._took: deque[float] = deque(maxlen=_NEWEST)
        self._shadow_took: deque[float] = deque(maxlen=_NEWEST)
        self._written: ShadowCounts | None = None
        self._written_s: float | None = None
        self._differences = self._begin()

    def compared(
        self, tapped: Tapped, shadow: Answer | None, took_s: float, found: Comparison, at: datetime, *, failed: bool
    ) -> None:
        """Both were asked; ``failed``: only the shadow did not answer, or with an error (``found.detail`` says which)."""
        now = self.counts
        worst = found.worst if now.worst_difference is None else max(now.worst_difference, found.worst or 0.0)
        different = bool(found.detail) and not failed
        self.counts = msgspec.structs.replace(
            now,
            compared=now.compared + 1,
            different=now.different + different,
            failed=now.failed + failed,
            worst_difference=worst,
        )
        if not failed:
            self._took.append(tapped.head.seconds)
            self._shadow_took.append(took_s)
        if found.detail and self._differences < DIFFERENCES_MAX:
            self._show(_difference(tapped, shadow, found.detail, at))

    def dropped(self, requests: int) -> None:
        """Requests that nothing is known of: the shadow was away, or there was no room."""
        self.counts = msgspec.structs.replace(self.counts, dropped=self.counts.dropped + requests)

    def trouble(self, problem: str) -> None:
        """Why nothing is compared now, "" when all is well."""
        if problem != self.counts.problem:
            self.counts = msgspec.structs.replace(self.counts, problem=problem)

    def keep(self, now_s: float, *, at_once: bool = False) -> None:
        """Write what has changed, now and then."""
        due = self._written_s is None or now_s >= self._written_s + KEEP_S
        if self.counts == self._written or not (due or at_once):
            return
        if self._took:
            middles = {"latency_p50_s": median(self._took), "shadow_latency_p50_s": median(self._shadow_took)}
            self.counts = msgspec.structs.replace(self.counts, **middles)
        self._written_s = now_s
        try:
            atomic_write(self._counts_file, msgspec.json.encode(self.counts), mode=0o600)
            self._written = self.counts
        except OSError as problem:
            _log.warning("the counts could not be written: %s", problem)

    def _begin(self) -> int:
        """How many differing requests are kept of this pair already."""
        try:
            if self.counts.different + self.counts.failed == 0:
                self._differences_file.unlink(missing_ok=True)
                return 0
            return len(self._differences_file.read_bytes().splitlines())
        except OSError:
            return 0

    def _show(self, difference: ShadowDifference) -> None:
        self._differences += 1
        try:
            with self._differences_file.open("ab") as file:
                self._differences_file.chmod(0o600)
                file.write(msgspec.json.encode(difference) + b"\n")
        except OSError as problem:
            _log.warning("a differing request could not be kept: %s", problem)


def _kept(file: Path, pair: str) -> ShadowCounts:
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=ShadowCounts)
    except (OSError, msgspec.MsgspecError):
        return ShadowCounts(pair=pair)
    return kept if kept.pair == pair else ShadowCounts(pair=pair)


def _difference(tapped: Tapped, shadow: Answer | None, detail: str, at: datetime) -> ShadowDifference:
    head = tapped.head
    return ShadowDifference(
        at=at.isoformat(timespec="milliseconds"),
        detail=detail,
        method=head.method,
        path=f"{head.path}?{head.query}"[:SHOWN_BYTES_MAX] if head.query else head.path[:SHOWN_BYTES_MAX],
        content_type=head.headers.get("content-type", "")[:200],
        body=_shown(tapped.body),
        status=head.status,
        answer=_shown(tapped.answer),
        shadow_status=shadow.status if shadow else None,
        shadow_answer=_shown(shadow.body) if shadow else "",
    )


def _shown(body: bytes) -> str:
    cut = body[:SHOWN_BYTES_MAX]
    try:
        return cut.decode()
    except UnicodeDecodeError as problem:
        if len(body) > SHOWN_BYTES_MAX and problem.start >= len(cut) - 3:
            return cut[: problem.start].decode()
        return "base64:" + base64.b64encode(cut).decode()
