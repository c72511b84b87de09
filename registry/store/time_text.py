"""Times as the database keeps them: RFC 3339 text in UTC with microseconds, which sorts as text."""

from __future__ import annotations

from datetime import UTC, datetime


def to_text(moment: datetime) -> str:
    """``2026-11-21T08:39:00.000000Z``."""
    # Not strftime, whose year 999 has three digits.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def from_text(text: str) -> datetime:
    return datetime.fromisoformat(text)


def maybe_from_text(text: str | None) -> datetime | None:
    return None if text is None else from_text(text)
