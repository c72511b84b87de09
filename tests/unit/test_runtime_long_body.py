"""A body of many parts: every byte in its place, whatever was announced, and no more memory than it has."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from runtime.front.long_body import LongBody

MIB = 1024 * 1024


@given(st.lists(st.binary(max_size=50), max_size=40), st.integers(0, 60), st.booleans())
def test_parts_follow_each_other(parts: list[bytes], more: int, told: bool) -> None:
    whole = b"".join(parts)
    body = LongBody(len(whole) + more if told else None)
    for at in range(0, len(parts), 3):
        body.add(parts[at : at + 3])
    assert body.whole() == whole


def test_what_was_announced_is_not_taken_before_it_comes() -> None:
    tracemalloc.start()
    try:
        body = LongBody(2**40)
        body.add([b"x" * 1000])
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_a_whole_body_is_held_once() -> None:
    part = b"x" * (MIB // 4)
    body = LongBody(64 * MIB)
    for _ in range(256):
        body.add([part])
    tracemalloc.start()
    try:
        whole = body.whole()
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    assert len(whole) == 64 * MIB
