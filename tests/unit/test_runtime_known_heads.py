"""Requests whose head came before are not parsed again; nobody may be able to tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.exchange import Request
from runtime.front.known_heads import KnownHeads
from runtime.front.limits import SMALL_BODY_BYTES, Buffered
from runtime.front.receiving import Receiving

POST = b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


class Taken:
    """One connection's requests and refusals. ``known`` None: everything is parsed."""

    def __init__(self, known: KnownHeads | None) -> None:
        self.events: list[object] = []
        self.shortcuts = 0
        self._shortcuts_on = known is not None
        self._receiving = Receiving(self, 100_000, Buffered(2**30), None, known or KnownHeads())

    def has_room(self) -> bool:
        return True

    def came(self, request: Request, keep_alive: bool, old: bool) -> None:
        self.events.append((request, keep_alive, old))

    def refuse(self, status: int, problem: str) -> None:
        self.events.append((status, problem))
        self._receiving.stop()

    def bring(self, data: bytes) -> None:
        request = self._receiving.at_once(data) if self._shortcuts_on else None
        if request is None:
            self._receiving.feed(data)
        else:
            self.shortcuts += 1
            self.events.append((request, True, False))


def post(body: bytes, *more: bytes) -> bytes:
    return POST + b"".join(more) + b"Content-Length: %d\r\n\r\n" % len(body) + body


PIECES = st.sampled_from(
    [
        post(b"[1]"),
        post(b"[2]"),
        post(b""),
        post(b"\r\n\r\n"),
        post(b"GET / HTTP/1.1\r\n\r\n"),
        post(b"[1]", b"X-Request-Id: 1\r\n"),
        post(b"[2]", b"X-Request-Id:  a-2 \r\n"),
        post(b"[2]", b"X-Request-Id:\r\n"),
        post(b"[2]", b"X-Request-Id: \ta\r\n"),
        post(b"[2]", b"X-Request-Id: a b\r\n"),
        post(b"[2]", b"X-Request-Id: a\xff\r\n"),
        post(b"[2]", b"X-Request-Id : a\r\n"),
        post(b"[2]", b"X-Request-Id: 1\r\nx-request-id: 2\r\n"),
        post(b"[2]", b"x-request-id: 3\r\nTraceparent: 00-a-b-01\r\n"),
        post(b"[2]", b"X-Request-Id\r\n"),
        post(b"[2]", b"A: b\r\n"),
        post(b"[2]", b"Proxy-Connection: close\r\n"),
        post(b"[2]", b"A: b\r\n")[:-2],
        b"POST /score HTTP/1.1\r\nX-Request-Id: 5\r\nA: b\r\n\r\n",
        b"POST /score HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n[1]",
        b"POST /score HTTP/1.1\r\nContent-Length: 3\r\n\r\n[1]",
        b"POST /score HTTP/1.1\r\nContent-Length: 003\r\n\r\n[1]",
        b"POST /score HTTP/1.1\r\n A: b\r\nContent-Length: 3\r\n\r\n[1]",
        post(b"[1]", b"Connection: close\r\n"),
        post(b"[1]", b"Connection: keep-alive\r\n"),
        post(b"[1]", b"Expect: 100-continue\r\n"),
        post(b"[1]", b"A: b\r\nA: c\r\n"),
        post(b"[1]") + post(b"[2]"),
        post(b"[1]")[:-1],
        post(b"[1]")[:30],
        post(b"[1]")[30:],
        POST + b"Content-Length: 3\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n[1]",
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
        POST + b"\r\n",
        b"GET /docs?x=%20 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n",
        b"[1]",
        b"3",
    ]
)


@given(st.lists(PIECES, max_size=12))
def test_whatever_comes_is_the_same_with_and_without_what_is_known(pieces: list[bytes]) -> None:
    known = KnownHeads()
    learner, again, parser = Taken(known), Taken(known), Taken(None)
    for taken in (learner, again, parser):
        for piece in pieces:
            taken.bring(piece)
    assert again.events == learner.events == parser.events


def test_the_second_request_with_a_head_is_not_parsed_whoever_sends_it() -> None:
    known = KnownHeads()
    first, second = Taken(known), Taken(known)
    first.bring(post(b"[1]"))
    assert first.shortcuts == 0
    for taken in (first, second):
        taken.bring(post(b"[2]"))
        assert taken.shortcuts == 1
    expected = Request("POST", "/score", "", {"host": "a", "content-type": "application/json", "content-length": "3"}, b"[2]")
    assert second.events == [(expected, True, False)]


@pytest.mark.parametrize(
    "data",
    [
        post(b"[1]", b"Connection: keep-alive\r\n"),
        post(b"[1]", b"A: b\r\na: c\r\n"),
        post(b"[1]", b"A: %b\r\n" % (b"a" * 2048)),
        post(b"1" * (SMALL_BODY_BYTES + 1)),
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
    ],
)
def test_heads_that_are_not_kept(data: bytes) -> None:
    taken = Taken(KnownHeads())
    taken.bring(data)
    taken.bring(data)
    assert len(taken.events) == 2
    assert taken.shortcuts == 0


def test_ids_of_requests_may_differ_and_are_everybodys_own() -> None:
    known = KnownHeads()
    Taken(known).bring(post(b"[1]", b"X-Ms-Request-Id: first\r\nTraceparent: 00-1-2-01\r\n"))
    taken = Taken(known)
    for number in range(3):
        taken.bring(post(b"[%d]" % number, b"X-Ms-Request-Id: id-%d\r\n" % number))
    assert taken.shortcuts == 3
    assert [event[0].headers["x-ms-request-id"] for event in taken.events] == ["id-0", "id-1", "id-2"]  # type: ignore[index]  # requests
    assert all("traceparent" not in event[0].headers for event in taken.events)  # type: ignore[index]  # requests
    taken.bring(post(b"[1]", b"X-Ms-Request-Id: sp ace\r\n"))
    assert taken.shortcuts == 3


def test_a_caller_that_makes_up_heads_fills_no_memory() -> None:
    known = KnownHeads()
    taken = Taken(known)
    for number in range(5000):
        taken.bring(b"GET /%d HTTP/1.1\r\nHost: a%d\r\n\r\n" % (number, number))
    assert len(taken.events) == 5000
    assert known.count <= 1200


def test_nothing_is_taken_at_once_in_the_middle_of_another_request() -> None:
    taken = Taken(KnownHeads())
    taken.bring(post(b"[1]"))
    inner = post(b"[2]")
    taken.bring(POST + b"Content-Length: %d\r\n\r\n" % len(inner))
    taken.bring(inner)
    assert [event[0].body for event in taken.events] == [b"[1]", inner]  # type: ignore[index]  # requests, all of them
