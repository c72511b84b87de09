"""Times and spans of time as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from hedgerow.cli.times import duration_s, moment, span_s
from hedgerow.clock import SystemClock

_CONTEXT = click.Context(click.Command("x"))
_OPTION = click.Option(["--since"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("45min", 2_700), ("45m", 2_700), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), ("7", None), ("d", None)],
)
def test_spans(text: str, seconds: int | None) -> None:
    assert span_s(text) == seconds


def test_a_span_is_so_long_ago() -> None:
    found = moment(_CONTEXT, _OPTION, "2d")
    assert found is not None
    assert abs(SystemClock().now() - found - timedelta(days=2)) < timedelta(seconds=20)


def test_a_time_without_an_offset_is_local() -> None:
    assert moment(_CONTEXT, _OPTION, "2026-01-31T12:00:00") == datetime(2026, 1, 31, 12).astimezone()
    assert moment(_CONTEXT, _OPTION, "2026-01-31") == datetime(2026, 1, 31).astimezone()
    assert moment(_CONTEXT, _OPTION, "2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert moment(_CONTEXT, _OPTION, "2026-01-31T12:00:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert moment(_CONTEXT, _OPTION, None) is None


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "-2d", "2 d", "999999999w", "²d", "1.5h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time"):
        moment(_CONTEXT, _OPTION, text)


@pytest.mark.parametrize("text", ["", "0d", "d", "1y", "-1d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration"):
        duration_s(_CONTEXT, _OPTION, text)


def test_a_duration_in_seconds() -> None:
    assert duration_s(_CONTEXT, _OPTION, "30d") == 2_592_000
    assert duration_s(_CONTEXT, _OPTION, None) is None
