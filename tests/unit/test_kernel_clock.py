"""Clock: wall time in UTC, and a boot's identity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.clock import SystemClock, boot_id, unix_ms


def test_now_is_utc_and_monotonic_time_does_not_go_back() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    assert clock.monotonic_s() <= clock.monotonic_s()


@given(st.integers(0, 4_102_444_800_000))
def test_milliseconds_survive_the_way_there_and_back(milliseconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    assert unix_ms(moment) == milliseconds
    assert unix_ms(moment.astimezone(timezone(timedelta(hours=5, minutes=30)))) == milliseconds


def test_boot_id_is_the_kernels(tmp_path: Path) -> None:
    assert boot_id() == boot_id()
    file = tmp_path / "boot_id"
    file.write_text("abc\n")
    assert boot_id(file) == "abc"
