"""What a build in a container engine says, put together out of the pieces it arrives in."""

from __future__ import annotations

import pytest

from packager.engine.docker_build import Said


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        (["one\n", "two\n"], ["one", "two"]),
        (["error", ":", " no header foo.h\nhi", "nt: ask\n"], ["error: no header foo.h", "hint: ask"]),
        (["10 %\r20 %\r\n", "\n"], ["10 %", "20 %"]),
        (["\x1b[1mbo", "ld\x1b[0m\n"], ["bold"]),
        (["the last words"], ["the last words"]),
        (["x" * 2000, "y\n"], ["x" * 500]),
    ],
)
def test_lines_are_whole_however_they_were_cut(pieces: list[str], lines: list[str]) -> None:
    said = Said()
    assert [line for piece in [*pieces, "\n"] for line in said.lines(piece)] == lines
