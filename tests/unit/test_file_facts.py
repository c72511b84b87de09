"""What a file was when it was read: equal while it is that, different or unknown as soon as it may be something else."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hedgerow.file_facts import seen_at

LARGE_BYTES = 9 << 20
# Long after whatever a test writes.
LATER = datetime.now(UTC) + timedelta(hours=1)


def test_a_small_file_is_its_content_whatever_its_times(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(b"one")
    first = seen_at(path, datetime.now(UTC))
    os.utime(path, (1, 1))
    assert seen_at(path, LATER) == first is not None
    path.write_bytes(b"two")
    os.utime(path, (1, 1))
    assert seen_at(path, LATER) != first


def test_a_large_file_that_is_written_to_in_its_place_is_another(tmp_path: Path) -> None:
    path = tmp_path / "base.tar"
    path.write_bytes(bytes(LARGE_BYTES))
    first = seen_at(path, LATER)
    assert seen_at(path, LATER) == first is not None
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    # Whoever sets its times back changes when its entry changed.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert seen_at(path, LATER) != first


def test_a_large_file_that_was_just_written_is_not_rested_on(tmp_path: Path) -> None:
    path = tmp_path / "base.tar"
    path.write_bytes(bytes(LARGE_BYTES))
    assert seen_at(path, datetime.fromtimestamp(path.stat().st_ctime + 1.0, UTC)) is None


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "no name"])
def test_what_is_no_file_is_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)  # nobody writes: reading it would never end
    assert seen_at(Path("a\0b") if kind == "no name" else path, LATER) is None
