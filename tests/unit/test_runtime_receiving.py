"""Callers that do not send their request in time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from hedgerow.receiving import CROWDED_S, Receiving


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(3)]
    for pair in made:
        for end in pair:
            end.settimeout(5)
    yield made
    for pair in made:
        for end in pair:
            end.close()


def test_who_is_late_is_read_to_the_end_and_can_still_be_answered(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    (ours, theirs), *_ = pairs
    receiving = Receiving(30.0, threads=8)
    receiving.begin(ours, 100.0)
    assert receiving.cut_late(130.0) == 0
    assert receiving.cut_late(130.1) == 1
    assert ours.recv(1) == b""
    ours.sendall(b"400")
    assert theirs.recv(3) == b"400"
    assert receiving.cut_late(999.0) == 0


def test_who_is_done_is_left_alone(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    (ours, theirs), *_ = pairs
    receiving = Receiving(30.0, threads=8)
    receiving.begin(ours, 100.0)
    receiving.done(ours)
    receiving.done(None)
    assert receiving.cut_late(999.0) == 0
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"


def test_when_every_thread_waits_the_slow_make_way_at_once(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    receiving = Receiving(30.0, threads=3)
    for ours, _ in pairs[:2]:
        receiving.begin(ours, 100.0)
    assert receiving.cut_late(100.1 + CROWDED_S) == 0
    receiving.begin(pairs[2][0], 100.1 + CROWDED_S)
    assert receiving.cut_late(100.1 + CROWDED_S) == 2


def test_a_connection_that_is_gone_by_itself_harms_nothing() -> None:
    ours, theirs = socket.socketpair()
    receiving = Receiving(1.0, threads=8)
    receiving.begin(ours, 0.0)
    ours.close()
    theirs.close()
    assert receiving.cut_late(2.0) == 1
