"""What narrows a list, as the API takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime


def label_filters(labels: Mapping[str, str | None] | None) -> Sequence[str]:
    """Tags or properties: ``KEY=VALUE`` for each, ``KEY`` where the value is None: any value will do."""
    return [key if value is None else f"{key}={value}" for key, value in (labels or {}).items()]


def instant_filter(moment: datetime | None) -> str | None:
    """A time; one without an offset is local."""
    return None if moment is None else moment.astimezone().isoformat()
