"""Messages that wait: bounded, in order, announced."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from registry.hub.inbox import Inbox
from registry.hub.link import Uplink
from registry.hub.seldom import Seldom


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox(max_bytes=10_000, max_count=8)
    yield made
    made.close()


def said(number: int, size: int = 10) -> Uplink:
    return Uplink(str(number), "telemetry", b"x" * size)


def is_announced(inbox: Inbox) -> bool:
    return bool(select.select([inbox], [], [], 0)[0])


def test_first_in_first_out_in_groups(inbox: Inbox) -> None:
    for number in range(5):
        inbox.put(said(number))
    assert [uplink.device_uuid for uplink in inbox.take(3, 1_000_000)] == ["0", "1", "2"]
    assert is_announced(inbox)
    assert [uplink.device_uuid for uplink in inbox.take(3, 1_000_000)] == ["3", "4"]
    assert not is_announced(inbox)
    assert inbox.take(3, 1_000_000) == []


def test_a_group_ends_at_its_bytes_but_takes_one_at_least(inbox: Inbox) -> None:
    for number in range(3):
        inbox.put(said(number, 2_000))
    assert len(inbox.take(10, 1)) == 1
    assert len(inbox.take(10, 3_000)) == 2


def test_what_does_not_fit_is_dropped_and_counted(inbox: Inbox) -> None:
    for number in range(10):
        inbox.put(said(number))
    inbox.put(said(99, 9_000))
    assert inbox.take_dropped() == 3
    assert inbox.take_dropped() == 0
    assert [uplink.device_uuid for uplink in inbox.take(100, 1_000_000)] == [str(number) for number in range(8)]
    inbox.put(said(99, 9_000))
    assert len(inbox.take(1, 1)) == 1


def test_a_reconnect_is_announced_until_it_is_taken(inbox: Inbox) -> None:
    inbox.note_connected()
    inbox.take(1, 1)
    assert is_announced(inbox)
    assert inbox.take_connected()
    inbox.take(1, 1)
    assert not is_announced(inbox)
    assert not inbox.take_connected()


def test_seldom_counts_what_it_keeps_back() -> None:
    seldom = Seldom(60.0)
    assert seldom.allows("forged", 0.0) == 1
    assert [seldom.allows("forged", second) for second in (1.0, 2.0, 59.0)] == [0, 0, 0]
    assert seldom.allows("other", 2.0) == 1
    assert seldom.allows("forged", 60.0) == 4
    assert seldom.allows("forged", 120.0) == 1
