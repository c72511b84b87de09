"""What the scoring server's own HTTP takes for a request and what it refuses, byte by byte, over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from runtime.front.limits import HEAD_BYTES, HEADER_COUNT, TARGET_BYTES
from tests.front_door import FrontDoor, answers_in

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def door() -> Iterator[FrontDoor]:
    with FrontDoor() as running:
        yield running


REFUSED: dict[str, tuple[bytes, int]] = {
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a byte order mark": (b"\xef\xbb\xbf" + GET + b"\r\n", 400),
    "lower case method": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "unknown method": (b"SCORE / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "http/0.9": (b"GET /\r\n\r\n", 505),
    "http/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    "http/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "connect": (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "space in target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "nul in target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tab before target": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "nul in value": (GET + b"A: b\0c\r\n\r\n", 400),
    "nul in name": (GET + b"A\0: b\r\n\r\n", 400),
    "cr in value": (GET + b"A: b\rc\r\n\r\n", 400),
    "lf in value": (GET + b"A: b\nC: d\r\n\r\n", 400),
    "space before colon": (POST + b"Content-Length : 1\r\n\r\na", 400),
    "no name": (GET + b": b\r\n\r\n", 400),
    "no colon": (GET + b"abc\r\n\r\n", 400),
    "folded": (GET + b"A: b\r\n c\r\n\r\n", 400),
    "folded at once": (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", 400),
    "two hosts": (GET + b"host: b\r\n\r\n", 400),
    "two types": (POST + b"Content-Type: a\r\nContent-Type: b\r\nContent-Length: 0\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na", 400),
    "the same length twice": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "a list of lengths": (POST + b"Content-Length: 1, 1\r\n\r\na", 400),
    "negative": (POST + b"Content-Length: -1\r\n\r\na", 400),
    "signed": (POST + b"Content-Length: +1\r\n\r\na", 400),
    "hexadecimal": (POST + b"Content-Length: 0x1\r\n\r\na", 400),
    "empty length": (POST + b"Content-Length:\r\n\r\na", 400),
    "overflowing": (POST + b"Content-Length: 99999999999999999999999\r\n\r\na", 400),
    "huge": (POST + b"Content-Length: 18446744073709551615\r\n\r\na", 413),
    "length and chunks": (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", 400),
    "not chunked last": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "chunked and not": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "nearly chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "vertical tab": (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "empty encoding": (POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    "compressed chunks": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunks in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunk without size": (CHUNKED + b"zz\r\n", 400),
    "negative chunk": (CHUNKED + b"-1\r\n", 400),
    "chunk with 0x": (CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n", 400),
    "chunk size with space": (CHUNKED + b"2 \r\nab\r\n0\r\n\r\n", 400),
    "chunk size overflows": (CHUNKED + b"fffffffffffffffff\r\nab", 400),
    "chunk longer than said": (CHUNKED + b"2\r\nabc\r\n0\r\n\r\n", 400),
    "chunk line feeds": (CHUNKED + b"2\nab\n0\n\n", 400),
    "line feed in extension": (CHUNKED + b"2;a\nb\r\nab\r\n0\r\n\r\n", 400),
    "length as trailer": (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400),
    "over the limit": (POST + b"Content-Length: 100001\r\n\r\n", 413),
    "chunks over the limit": (CHUNKED + b"186a1\r\n" + b"x" * 100_001, 413),
    "other expectations": (POST + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417),
    "long target": (b"GET /" + b"a" * TARGET_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "endless target": (b"GET /" + b"a" * 200_000, 414),
    "many headers": (GET + b"A: b\r\n" * HEADER_COUNT + b"\r\n", 431),
    "long head": (GET + b"".join(b"A%d: %b\r\n" % (at, b"b" * 1000) for at in range(66)) + b"\r\n", 431),
    "long header": (GET + b"A: " + b"b" * HEAD_BYTES + b"\r\n\r\n", 431),
    "endless header": (GET + b"A: " + b"b" * 300_000, 431),
    "endless trailer": (CHUNKED + b"0\r\nA: " + b"b" * 1_000_000, 400),
    "many trailers": (CHUNKED + b"0\r\n" + b"A: b\r\n" * 100_000, 400),
    "endless extension": (CHUNKED + b"1;a=" + b"b" * 1_000_000, 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_is_refused_once_and_ends_the_connection(door: FrontDoor, name: str) -> None:
    data, status = REFUSED[name]
    handled = door.handled
    # Another request behind it must not be taken for one: that is how requests are smuggled.
    answers = answers_in(door.talk(data + GET + b"\r\n"))
    assert [answer[0] for answer in answers] == [status], answers
    assert answers[0][1]["connection"] == "close"
    assert json.loads(answers[0][2]).keys() == {"problem", "path"}
    assert door.handled == handled


TAKEN: dict[str, tuple[bytes, dict[str, object]]] = {
    "plain": (GET + END, {"method": "GET", "path": "/", "query": "", "body": ""}),
    "absolute": (b"GET http://a.b:8/score?x=1 HTTP/1.1\r\nHost: a\r\n" + END, {"path": "/score", "query": "x=1"}),
    "absolute without path": (b"GET http://a.b HTTP/1.1\r\nHost: a\r\n" + END, {"path": "/"}),
    "absolute with query only": (b"GET http://a.b?c=/d HTTP/1.1\r\nHost: a\r\n" + END, {"path": "/", "query": "c=/d"}),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n" + END, {"method": "OPTIONS", "path": "*"}),
    "escaped": (b"GET /a%20b%2Fc?x=%20 HTTP/1.1\r\nHost: a\r\n" + END, {"path": "/a b/c", "query": "x=%20"}),
    "two slashes": (b"GET //a://b HTTP/1.1\r\nHost: a\r\n" + END, {"path": "//a://b"}),
    "no host": (b"GET / HTTP/1.1\r\n" + END, {"path": "/"}),
    "blank lines before": (b"\r\n\r\n" + GET + END, {"path": "/"}),
    "http/1.0": (b"GET / HTTP/1.0\r\n\r\n", {"path": "/"}),
    "http/1.0 that expects": (b"POST / HTTP/1.0\r\nExpect: anything\r\nContent-Length: 1\r\n\r\na", {"body": "a"}),
    "repeated header": (GET + b"X: 1\r\nx: 2\r\n" + END, {"headers": {"host": "a", "x": "1, 2", "connection": "close"}}),
    "empty value": (GET + b"X:\r\nY: \r\n" + END, {"headers": {"host": "a", "x": "", "y": "", "connection": "close"}}),
    "latin-1 value": (GET + b"X: \xff\r\n" + END, {"headers": {"host": "a", "x": "\xff", "connection": "close"}}),
    "body": (POST + b"Content-Length: 3\r\n" + END + b"abc", {"method": "POST", "body": "abc"}),
    "no body": (POST + b"Content-Length: 0\r\n" + END, {"body": ""}),
    "longest body": (POST + b"Content-Length: 100000\r\n" + END + b"x" * 100_000, {"body": "x" * 100_000}),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n" + END + b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n", {"body": "abc"}),
    "chunks in capitals": (
        POST + b"Transfer-Encoding: CHUNKED\r\n" + END + b"A\r\n0123456789\r\n0\r\n\r\n",
        {"body": "0123456789"},
    ),
    "trailers are dropped": (
        POST + b"Transfer-Encoding: chunked\r\n" + END + b"1\r\na\r\n0\r\nX-Request-Id: b\r\nHost: c\r\n\r\n",
        {"body": "a", "headers": {"host": "a", "transfer-encoding": "chunked", "connection": "close"}},
    ),
    "chunks of one byte": (
        POST + b"Transfer-Encoding: chunked\r\n" + END + b"1\r\na\r\n" * 90_000 + b"0\r\n\r\n",
        {"body": "a" * 90_000},
    ),
    "longest target": (b"GET /" + b"a" * (TARGET_BYTES - 1) + b" HTTP/1.1\r\nHost: a\r\n" + END, {"query": ""}),
    "most headers": (GET + b"A: b\r\n" * (HEADER_COUNT - 2) + END, {"path": "/"}),
    "long head": (GET + b"".join(b"A%d: %b\r\n" % (at, b"b" * 1000) for at in range(60)) + END, {"path": "/"}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_a_request_is_understood(door: FrontDoor, name: str) -> None:
    data, expected = TAKEN[name]
    ((status, headers, body),) = answers_in(door.talk(data))
    assert status == 200
    assert headers["connection"] == "close"
    assert json.loads(body) | expected == json.loads(body)


def test_head_gets_the_length_alone(door: FrontDoor) -> None:
    answer = door.talk(b"HEAD / HTTP/1.1\r\nHost: a\r\n" + END)
    assert b"content-length: " in answer
    assert answer.endswith(b"\r\n\r\n")
    assert b"{" not in answer
    refused = door.talk(b"HEAD / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 417 ")
    assert b"{" not in refused


def test_offers_of_another_protocol_are_ignored_and_their_bodies_are_read(door: FrontDoor) -> None:
    h2c = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    chunked = h2c + b"Transfer-Encoding: chunked\r\n\r\n2\r\ncd\r\n0\r\n\r\n"
    websocket = GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    answers = answers_in(door.talk(h2c + b"Content-Length: 2\r\n\r\nab" + chunked + websocket + GET + END))
    assert [status for status, _, _ in answers] == [200] * 4
    assert [json.loads(body)["body"] for _, _, body in answers] == ["ab", "cd", "", ""]


def test_http_1_0_keeps_its_connection_when_it_asks_to(door: FrontDoor) -> None:
    one = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    first, second, last = answers_in(door.talk(one + one + b"GET / HTTP/1.0\r\n\r\n"))
    assert first[1]["connection"] == second[1]["connection"] == "keep-alive"
    assert last[1]["connection"] == "close"


def test_a_stream_has_chunks_in_1_1_and_an_end_in_1_0(door: FrontDoor) -> None:
    new = door.talk(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n" + GET + END)
    assert b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\nHTTP/1.1 200" in new
    for more in (b"", b"Connection: keep-alive\r\n"):
        old = door.talk(b"GET /stream HTTP/1.0\r\n" + more + b"\r\n")
        assert b"transfer-encoding" not in old
        assert old.endswith(b"\r\n\r\nonetwo")
        assert b"connection: close" in old


def test_a_mistake_of_ours_fails_its_own_request(door: FrontDoor) -> None:
    answers = answers_in(door.talk(b"GET /raise HTTP/1.1\r\nHost: a\r\n\r\n" + GET + END))
    assert [status for status, _, _ in answers] == [500, 200]
