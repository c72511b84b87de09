"""Memory: the limit that holds, and what is given back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.memory import give_back, memory_bytes

_MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("version", "file", "text", "expected"),
    [
        ("v2", "memory.max", "104857600\n", 104_857_600),
        ("v1", "memory.limit_in_bytes", "104857600\n", 104_857_600),
        ("v2", "memory.max", "max\n", _MACHINE),
        # Version 1's way to say that there is no limit.
        ("v1", "memory.limit_in_bytes", "9223372036854771712\n", _MACHINE),
        ("v2", "other", "1\n", _MACHINE),
    ],
)
def test_the_limit_of_the_cgroup_counts_and_otherwise_the_machine(
    tmp_path: Path, version: str, file: str, text: str, expected: int
) -> None:
    (tmp_path / version).mkdir()
    (tmp_path / version / file).write_text(text)
    assert memory_bytes(tmp_path / "v2", tmp_path / "v1") == expected


def test_what_was_freed_below_a_block_in_use_is_given_back() -> None:
    blocks = [bytes(100_000) for _ in range(600)]
    kept = blocks[-1]
    full = _resident_bytes()
    blocks.clear()
    give_back()
    assert full - _resident_bytes() > 40_000_000
    assert len(kept) == 100_000


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
