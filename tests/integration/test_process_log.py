"""The log writer of the shim, chunk by chunk, on real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.process.log_tail import tail_bytes
from hedgerow.process.shim_log import Log


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # the shim's working folder is its state folder
    return tmp_path


def contents(folder: Path) -> list[bytes]:
    """Oldest first."""
    return [path.read_bytes() for path in sorted(folder.glob("log*"), key=lambda path: int(path.suffix[1:] or 0), reverse=True)]


def test_a_line_that_does_not_fit_any_more_goes_whole_into_the_next_file(folder: Path) -> None:
    log = Log(bytes_max=100, files=3)
    lines = [b"%029d\n" % number for number in range(7)]
    for line in lines:
        log.write(line)
    assert contents(folder) == [b"".join(lines[:3]), b"".join(lines[3:6]), lines[6]]


def test_a_line_longer_than_a_file_is_cut_and_kept(folder: Path) -> None:
    log = Log(bytes_max=10, files=9)
    for chunk in (b"ab\n", b"x" * 15, b"y" * 12 + b"\nend\n"):
        log.write(chunk)
    assert b"".join(contents(folder)) == b"ab\n" + b"x" * 15 + b"y" * 12 + b"\nend\n"
    assert all(len(content) <= 10 for content in contents(folder))


def test_a_new_writer_goes_on_where_the_last_one_ended(folder: Path) -> None:
    Log(bytes_max=10, files=2).write(b"123456\n")
    Log(bytes_max=10, files=2).write(b"abcdef\n")
    assert contents(folder) == [b"123456\n", b"abcdef\n"]


def test_a_log_that_cannot_be_opened_loses_lines_and_says_so_later(folder: Path) -> None:
    (folder / "log").mkdir()
    log = Log(bytes_max=1000, files=2)
    log.write(b"one\ntwo\n")
    log.write(b"three\n")
    assert log.lost_lines == 3
    (folder / "log").rmdir()
    log.write(b"four\n")
    assert (folder / "log").read_bytes() == b"[hedgerow] 3 lines (14 bytes) are missing here: Is a directory\nfour\n"
    assert log.lost_lines == 0


@pytest.mark.parametrize(
    ("lines", "expected"), [(0, b""), (1, b"four"), (2, b"three\nfour"), (3, b"two\nthree\nfour"), (9, b"one\ntwo\nthree\nfour")]
)
def test_tail_goes_back_over_older_files(folder: Path, lines: int, expected: bytes) -> None:
    (folder / "log.1").write_bytes(b"one\ntwo\n")
    (folder / "log").write_bytes(b"three\nfour")
    assert tail_bytes(folder / "log", lines) == expected


def test_tail_of_what_was_never_written_is_empty(folder: Path) -> None:
    assert tail_bytes(folder / "log", 5) == b""
