"""How much memory bodies may take, and how a queue is shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.admission import Admission
from runtime.errors import Overloaded
from runtime.front.limits import Buffered
from runtime.memory import memory_bytes


@pytest.mark.parametrize(
    ("version", "text", "limited"),
    [("v2", "1000000\n", True), ("v2", "max\n", False), ("v1", "2000000\n", True), ("v1", "", False)],
)
def test_the_cgroups_memory_counts_and_not_the_machines(tmp_path: Path, version: str, text: str, limited: bool) -> None:
    v2, v1 = tmp_path / "v2", tmp_path / "v1"
    v2.mkdir()
    v1.mkdir()
    file = v2 / "memory.max" if version == "v2" else v1 / "memory.limit_in_bytes"
    file.write_text(text)
    machine = memory_bytes(tmp_path / "none", tmp_path / "none")
    assert machine > 2_000_000
    assert memory_bytes(v2, v1) == (int(text) if limited else machine)


def test_what_is_taken_is_counted_even_beyond_the_limit() -> None:
    buffered = Buffered(100)
    assert buffered.take(60)
    assert buffered.has_room(40)
    assert not buffered.has_room(41)
    assert not buffered.take(41), "it is there, and has to go"
    buffered.give(41)
    assert buffered.take(40)


def test_a_full_queue_still_has_a_share_for_every_lane() -> None:
    admission = Admission(None, 8, lambda: None)
    for already in range(8):
        admission.enqueue(already)
    with pytest.raises(Overloaded):
        admission.enqueue(8)
    admission.enqueue(0)
    admission.enqueue(1)
    with pytest.raises(Overloaded):
        admission.enqueue(2)
    nobody = Admission(None, 0, lambda: None)
    with pytest.raises(Overloaded):
        nobody.enqueue(0)
