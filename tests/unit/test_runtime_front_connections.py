"""Connections of the scoring server's own HTTP: order, slow and vanishing callers, limits of memory and time, the end."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.exchange import Response
from runtime.front.limits import SLICE_BYTES, HttpLimits
from tests.front_door import FrontDoor, answers_in, read_all, read_until
from tests.waiting import wait_for

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def door() -> Iterator[FrontDoor]:
    limits = HttpLimits(
        body_bytes=1_000_000, receive_timeout_s=1.0, keepalive_s=60.0, send_timeout_s=1.0, buffered_bytes=3_000_000
    )
    with FrontDoor(limits) as running:
        yield running


def post(size: int, path: str = "/") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), size) + b"x" * size


def numbered(count: int, padding: int = 0) -> bytes:
    return b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (at, b"y" * padding) for at in range(count))


def reset(caller: socket.socket) -> None:
    """Leave without a goodbye."""
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()


def gone(door: FrontDoor) -> None:
    wait_for(lambda: door.door.connections == 0, what="no connection")
    assert door.on_loop(lambda: door.door.buffered.held) == 0, "nothing is counted that is not there"


# Pipelining -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "padding"), [(500, 0), (3000, 0), (300, 2000)])
def test_hundreds_of_pipelined_requests_are_answered_in_order(door: FrontDoor, count: int, padding: int) -> None:
    # More bytes than a head may have, all in one go: no single head is too long.
    answers = answers_in(door.talk(numbered(count, padding) + LAST))
    assert [json.loads(body)["path"] for _, _, body in answers] == [f"/{at}" for at in range(count)] + ["/last"]


def test_a_bad_request_among_good_ones_is_answered_in_its_turn_and_ends_it(door: FrontDoor) -> None:
    handled = door.handled
    with door.connect() as caller:
        caller.sendall(WAIT + numbered(3) + b"GET / HTTP/1.1\r\nA : b\r\n\r\n" + numbered(3))
        wait_for(lambda: door.held, what="the first to be held back")
        door.release()
        answers = answers_in(read_all(caller))
    assert [status for status, _, _ in answers] == [200] * 4 + [400]
    assert door.handled == handled + 4


def test_nothing_is_begun_before_the_request_in_front_is_answered(door: FrontDoor) -> None:
    with door.connect() as caller:
        handled = door.handled
        caller.sendall(WAIT * 3)
        for number in range(1, 4):
            wait_for(lambda: door.held, what="one to be held back")
            assert door.handled == handled + number
            door.release()
        read_until(caller, b"}")
    gone(door)


def test_a_caller_that_pipelines_without_end_is_not_read_without_end(door: FrontDoor) -> None:
    with door.connect(timeout_s=0.5) as caller:
        caller.sendall(WAIT)
        wait_for(lambda: door.held, what="it to be held back")
        with pytest.raises(TimeoutError):
            caller.sendall(numbered(400_000))
        door.release()
    wait_for(lambda: door.door.connections == 0, what="no connection")


# Segments ---------------------------------------------------------------------------------------------------------------

STREAM = (
    GET
    + post(5000)
    + b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n8\r\n01234567\r\n0\r\nT: r\r\n\r\n"
    + b"POST /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nbody"
    + b"GET /long HTTP/1.1\r\nHost: a\r\nX: "
    + b"z" * (SLICE_BYTES + 10)
    + b"\r\n\r\n"
    + LAST
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@settings(max_examples=30, deadline=None)
@given(places=st.lists(st.integers(0, 2**20), max_size=12))
def test_however_the_network_cuts_a_stream_the_answers_are_the_same(door: FrontDoor, places: list[int]) -> None:
    with door.connect() as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in cut(STREAM, places):
            caller.sendall(part)
        answers = answers_in(read_all(caller))
    assert [status for status, _, _ in answers] == [200] * 6
    told = [json.loads(body) for _, _, body in answers]
    assert [one["path"] for one in told] == ["/", "/", "/c", "/u", "/long", "/last"]
    assert [one["body"] for one in told] == ["", "x" * 5000, "abc01234567", "body", "", ""]


def test_byte_by_byte(door: FrontDoor) -> None:
    with door.connect() as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(STREAM[-400:])):
            caller.sendall((GET + LAST)[at : at + 1])
        assert [status for status, _, _ in answers_in(read_all(caller))] == [200, 200]


_HTTP_WORDS = [
    b"GET ",
    b"POST ",
    b"/",
    b" HTTP/1.1",
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Host: a",
]


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([*_HTTP_WORDS, GET, b"0", b": ", b"5\r\n"])), max_size=25)
)
def test_random_bytes_are_answered_or_refused(door: FrontDoor, parts: list[bytes]) -> None:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for status, _, _ in answers_in(door.talk(b"".join(parts), half_close=True)):
            assert status in (200, 400, 405, 413, 414, 417, 431, 501, 505)
    assert door.talk(LAST).startswith(b"HTTP/1.1 200 ")


# Callers that leave or are slow -----------------------------------------------------------------------------------------


def test_a_half_closed_caller_gets_its_answers(door: FrontDoor) -> None:
    assert len(answers_in(door.talk(GET + GET, half_close=True))) == 2
    assert door.talk(b"", half_close=True) == b""
    with door.connect() as caller:
        caller.sendall(WAIT + GET)
        wait_for(lambda: door.held, what="it to be held back")
        caller.shutdown(socket.SHUT_WR)
        wait_for(lambda: door.held[0].gone, what="its work to be called off, in case that it waits")
        door.release()
        first, second = answers_in(read_all(caller))
    assert "connection" not in first[1]
    assert second[1]["connection"] == "close"
    gone(door)


@pytest.mark.parametrize("sent", [b"", b"GE", GET[:20], post(100_000)[:50_000], GET + GET[:9], WAIT, WAIT + post(50_000)])
def test_a_caller_that_resets_leaves_nothing_behind(door: FrontDoor, sent: bytes) -> None:
    caller = door.connect()
    caller.sendall(sent)
    if WAIT in sent:
        wait_for(lambda: door.held, what="it to be held back")
    reset(caller)
    wait_for(lambda: door.door.connections == 0, what="no connection")
    assert all(exchange.gone for exchange in door.held)
    door.release()
    gone(door)


def test_slow_heads_and_bodies_end_with_408(door: FrontDoor) -> None:
    callers = [door.connect() for _ in range(3)]
    for caller, part in zip(
        callers, (b"G", post(10)[:-1], GET + b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"), strict=True
    ):
        caller.sendall(part)
    ends = [answers_in(read_all(caller)) for caller in callers]
    assert [[status for status, _, _ in end] for end in ends] == [[408], [408], [200, 408]]
    assert json.loads(ends[1][0][2])["problem"] == "it ended after 9 of 10 bytes"
    for caller in callers:
        caller.close()


def test_a_caller_that_does_not_read_is_cut_off_and_holds_one_answer(door: FrontDoor) -> None:
    caller = door.connect()
    handled = door.handled
    caller.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
    wait_for(lambda: door.on_loop(lambda: door.door.buffered.held) > 0, what="unsent bytes to be counted")
    wait_for(lambda: door.door.connections == 0, what="it to be cut off")
    # The kernel takes a few megabytes.
    assert door.handled - handled < 20
    caller.close()
    gone(door)


def test_a_caller_that_reads_slowly_but_steadily_gets_its_answer(door: FrontDoor) -> None:
    large = b"GET /large HTTP/1.1\r\nHost: a\r\n"
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.settimeout(10)
        caller.connect(("127.0.0.1", door.port))
        caller.sendall(large + b"\r\n" + large + b"Connection: close\r\n\r\n")
        began, size, pause = time.monotonic(), 0, threading.Event()
        while part := caller.recv(1 << 16):
            size += len(part)
            # Longer than the send timeout and than the time for lingering.
            if time.monotonic() - began < 2.5:
                pause.wait(0.05)
    assert size > 2 * len(door.large)


def test_many_silent_callers_keep_nobody_out(door: FrontDoor) -> None:
    callers = [door.connect() for _ in range(500)]
    for caller in callers[::2]:
        caller.sendall(GET[:10])
    began = time.monotonic()
    assert door.talk(LAST).startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() - began < 1.0
    for caller in callers:
        caller.close()
    gone(door)


# Limits -----------------------------------------------------------------------------------------------------------------


def test_the_answer_to_a_body_over_the_limit_arrives_while_it_is_still_being_sent(door: FrontDoor) -> None:
    for head in (b"Content-Length: 30000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1C9C380\r\n"):
        with door.connect() as caller:
            # As most clients do: send all, then look. Closing early would reset the connection, and the answer with it.
            caller.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + b"x" * 30_000_000)
            ((status, headers, _),) = answers_in(read_all(caller))
        assert (status, headers["connection"]) == (413, "close")
    gone(door)


def test_bodies_together_have_a_limit(door: FrontDoor) -> None:
    callers = [door.connect() for _ in range(3)]
    for caller in callers:
        caller.sendall(post(900_000, "/wait"))
    wait_for(lambda: len(door.held) == 3, what="all to be held back")
    assert answers_in(door.talk(post(900_000)))[0][0] == 503, "announced by its length"
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nF0000\r\n" + b"x" * 0xF0000
    assert answers_in(door.talk(chunked))[0][0] == 503, "not announced"
    assert door.talk(LAST).startswith(b"HTTP/1.1 200 "), "what needs no room goes on"
    door.release()
    for caller in callers:
        read_until(caller, b"}")
        caller.close()
    assert answers_in(door.talk(post(900_000).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)))[0][0] == 200
    gone(door)


def test_whoever_asks_first_is_told_to_go_on_in_their_turn(door: FrontDoor) -> None:
    asks = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
    with door.connect() as caller:
        caller.sendall(WAIT + asks)
        wait_for(lambda: door.held, what="the first to be held back")
        door.release()
        text = read_until(caller, b"HTTP/1.1 100 Continue\r\n\r\n")
        assert text.startswith(b"HTTP/1.1 200 ")
        caller.sendall(b"abc")
        assert b'"body": "abc"' in read_until(caller, b"}}")
        caller.sendall(asks + b"abc")
        assert read_until(caller, b"}}").startswith(b"HTTP/1.1 200 "), "who does not wait is not told"
        caller.sendall(asks.replace(b"3\r\n\r\n", b"3000000\r\n\r\n"))
        assert read_all(caller).startswith(b"HTTP/1.1 413 "), "no body is asked for that will not be taken"


def test_without_free_descriptors_silent_connections_make_way(door: FrontDoor) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    silent = [door.connect() for _ in range(40)]
    wait_for(lambda: door.door.connections == 40, what="all to be accepted")
    callers = [socket.socket() for _ in range(20)]
    open_now = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now, hard))
    try:
        for caller in callers:
            caller.settimeout(10)
            caller.connect(("127.0.0.1", door.port))
            caller.sendall(LAST)
        for caller in callers:
            assert read_all(caller).startswith(b"HTTP/1.1 200 ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for caller in silent + callers:
            caller.close()
    gone(door)


def test_header_values_of_an_answer_cannot_begin_another(door: FrontDoor) -> None:
    with door.connect() as caller:
        caller.sendall(WAIT)
        wait_for(lambda: door.held, what="it to be held back")
        evil = Response(
            200, b"fine", "text/plain", {"x-one": "1", "x-two": "2\r\nx-three: 3", "x\nfour": "4"}, (("x-five", "5\r"),)
        )
        door.on_loop(lambda: door.held.pop().answer(evil))
        ((_, headers, body),) = answers_in(read_until(caller, b"fine"))
    assert (headers["x-one"], body) == ("1", b"fine")
    assert not headers.keys() & {"x-two", "x-three", "x-four", "four", "x-five"}


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_have_none(door: FrontDoor, status: int) -> None:
    with door.connect() as caller:
        caller.sendall(WAIT + LAST)
        wait_for(lambda: door.held, what="it to be held back")
        door.on_loop(lambda: door.held.pop().answer(Response(status, b"HTTP/1.1 200 OK\r\n\r\n")))
        head, _, rest = read_all(caller).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert answers_in(rest)[0][0] == 200
    assert b"/last" in rest


# The end ----------------------------------------------------------------------------------------------------------------


def test_closing_answers_what_was_taken_and_says_that_it_closes() -> None:
    with FrontDoor() as door:
        with door.connect() as busy, door.connect() as idle:
            busy.sendall(WAIT + numbered(40))
            wait_for(lambda: door.held, what="it to be held back")

            def begin_to_close() -> None:
                door.door.stop_accepting()
                door.draining = door.loop.create_task(door.door.drain(5.0))  # type: ignore[attr-defined]  # a place to keep it

            door.on_loop(begin_to_close)
            assert read_all(idle) == b""
            door.release()
            answers = answers_in(read_all(busy))
        assert answers[0][0] == 200
        assert answers[-1][1]["connection"] == "close"
        with pytest.raises(ConnectionRefusedError):
            door.connect()


def test_ipv6() -> None:
    with FrontDoor(host="::1") as door:
        assert door.talk(LAST).startswith(b"HTTP/1.1 200 ")
