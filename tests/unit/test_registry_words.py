"""How the pages say things."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.server.studio import words

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (-3, "just now"),
        (5, "5 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3599, "60 min ago"),
        (7200, "2 h ago"),
        (86_400 * 3, "3 d ago"),
        (86_400 * 365 * 2, "2 y ago"),
        (-90, "in 2 min"),
    ],
)
def test_ages(seconds: float, said: str) -> None:
    assert words.ago(NOW - timedelta(seconds=seconds), NOW) == said


def test_durations() -> None:
    assert words.lasted(NOW, NOW + timedelta(seconds=1.26)) == "1.3 s"
    assert words.lasted(NOW, NOW + timedelta(seconds=75)) == "1 min"
    assert words.lasted(None, NOW) == words.lasted(NOW, None) == ""


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1500, "1.5 kB"),
        (15_000, "15 kB"),
        (999_600, "1.0 MB"),
        (3 * 10**15, "3000 TB"),
    ],
)
def test_sizes(count: int, said: str) -> None:
    assert words.size(count) == said


def test_digests_and_moments() -> None:
    assert words.short_digest("sha256:" + "0123456789abcdef" * 4) == "0123456789ab"
    assert words.exact(NOW) == "2026-11-21 08:00:00 UTC"


def test_a_running_module_is_well_and_a_running_run_is_at_work() -> None:
    assert words.tone("running") == "good"
    assert words.tone("running", work=True) == "busy"
    assert words.tone("stopped") == words.tone("anything") == "off"
    assert words.tone("failed") == "bad"


@given(st.lists(st.floats()))
def test_a_course_stays_inside_its_box(values: list[float]) -> None:
    for point in words.polyline(values, 160, 32).split():
        x, y = point.split(",")
        assert 0 <= float(x) <= 160
        assert 0 <= float(y) <= 32


def test_a_course_rises_with_its_values() -> None:
    assert words.polyline([0, 1], 10, 12) == "0.0,11.0 10.0,1.0"
    assert words.polyline([1]) == words.polyline([]) == ""
