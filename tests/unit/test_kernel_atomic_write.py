"""Files that are whole or not there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hedgerow.atomic_write import atomic_write


def test_writes_and_replaces_with_the_mode_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "state"
    atomic_write(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o644
    atomic_write(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_never_readable_by_others_on_the_way(tmp_path: Path) -> None:
    """The temporary file is private from its creation on; a reader who opens it early must not get it."""
    path = tmp_path / "secret"
    seen: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for file in tmp_path.iterdir():
                try:
                    seen.append(file.stat().st_mode & 0o777)
                except FileNotFoundError:
                    continue

    looker = threading.Thread(target=look)
    looker.start()
    written = 0
    # On a busy machine the looker may come late: it is waited for.
    while written < 50 or len(seen) < 50:
        atomic_write(path, b"x" * 4096, mode=0o600)
        written += 1
    stop.set()
    looker.join()
    assert seen
    assert set(seen) == {0o600}


def test_readers_see_the_old_or_the_new_content_only(tmp_path: Path) -> None:
    path = tmp_path / "state"
    contents = [bytes([65 + n]) * 50_000 for n in range(4)]
    atomic_write(path, contents[0])
    stop = threading.Event()
    broken: list[bytes] = []

    def read() -> None:
        while not stop.is_set():
            data = path.read_bytes()
            if data not in contents:
                broken.append(data[:20])

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(100):
        atomic_write(path, contents[n % 4])
    stop.set()
    reader.join()
    assert not broken


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    (path / "inside").write_text("kept")
    with pytest.raises(OSError, match="taken"):
        atomic_write(path, b"data")
    assert (path / "inside").read_text() == "kept"
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_a_missing_folder_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        atomic_write(tmp_path / "nowhere" / "state", b"")


def test_two_writers_end_with_one_of_both(tmp_path: Path) -> None:
    path = tmp_path / "state"
    writers = [threading.Thread(target=atomic_write, args=(path, letter * 100_000)) for letter in (b"a", b"b") * 5]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_bytes() in (b"a" * 100_000, b"b" * 100_000)
    assert list(tmp_path.iterdir()) == [path]
