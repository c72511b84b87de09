"""Following a log that grows and rotates: every line once, in order, none before it is whole."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.controller.log_follower import LogFollower


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def rotate(path: Path) -> None:
    path.replace(path.with_name("log.1"))


def test_a_line_is_given_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    follower = LogFollower(log)
    assert follower.lines() == []
    append(log, "one\ntw")
    assert follower.lines() == ["one"]
    append(log, "o\n\nthree")
    assert follower.lines() == ["two", ""]
    assert follower.lines(ended=True) == ["three"]
    follower.close()


def test_a_rotation_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    follower = LogFollower(log)
    append(log, "one\n")
    assert follower.lines() == ["one"]
    append(log, "two\n")
    rotate(log)
    append(log, "three\n")
    assert follower.lines() == ["two", "three"]
    rotate(log)
    assert follower.lines(ended=True) == []
    append(log, "four\n")
    assert follower.lines(ended=True) == ["four"]
    follower.close()


def test_bytes_that_are_no_text_are_shown_all_the_same(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff\xfe ok\n")
    follower = LogFollower(log)
    assert follower.lines() == ["\ufffd\ufffd ok"]
    follower.close()


@given(st.lists(st.sampled_from(["a\n", "bb", "\n", "ccc\nd", "look", "rotate"]), max_size=30))
@settings(deadline=None)
def test_whatever_the_order_of_writes_looks_and_rotations(events: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        follower = LogFollower(log)
        written, seen, fresh = "", [], False
        for event in events:
            if event == "look":
                seen += follower.lines()
                fresh = False
            elif event == "rotate":
                # The shim rotates at line ends, when it has more to write. Twice between two looks is more than is promised.
                if written.endswith("\n") and not fresh:
                    rotate(log)
                    append(log, "r")
                    written += "r"
                    fresh = True
            else:
                append(log, event)
                written += event
        seen += follower.lines(ended=True)
        follower.close()
        assert "\n".join(seen) == written.removesuffix("\n")
