"""Times and spans of time as people write them, the same for every command."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click

from hedgerow.clock import SystemClock

F = Callable[..., Any]
_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_SPAN = re.compile(r"([0-9]{1,9})(s|min|m|h|d|w)")


def since_option(function: F) -> F:
    text = "Of this time and later: 2026-01-31, 2026-01-31T12:00:00Z, or 30min, 12h, 7d ago. Local without an offset."
    return click.option("--since", callback=moment, metavar="TIME|SPAN", help=text)(function)


def until_option(function: F) -> F:
    return click.option("--until", callback=moment, metavar="TIME|SPAN", help="Before this time.")(function)


def moment(_context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """``2h`` (ago) or a time; one without an offset is local."""
    if value is None:
        return None
    try:
        if (span := span_s(value)) is not None:
            return SystemClock().now() - timedelta(seconds=span)
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is no time; write 2026-01-31, 2026-01-31T12:00:00Z, or 30min, 12h, 7d", param=parameter
        ) from None


def duration_s(_context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """``30d`` in seconds."""
    if value is None:
        return None
    found = span_s(value)
    if not found:
        raise click.BadParameter(f"{value!r} is no duration; write 30d, 12h or 45min", param=parameter)
    return found


def span_s(text: str) -> int | None:
    """``7d`` in seconds; None for what is no span of time."""
    found = _SPAN.fullmatch(text)
    return int(found[1]) * _UNITS_S[found[2]] if found else None
