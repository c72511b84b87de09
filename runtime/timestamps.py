"""Moments as text, quickly: the same second comes up many times."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def utc_text(epoch_s: float) -> str:
    """``2026-01-02T03:04:05.678Z`` of Unix time in seconds."""
    milliseconds = int(epoch_s * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
