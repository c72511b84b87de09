"""What is no HTTP request still gets the one error shape, over a raw socket, and never its own words back."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from registry.server.unreadable import LONGEST_LINE
from tests.registry_server import RunningServer
from tests.waiting import wait_for

HOST = b"Host: 127.0.0.1\r\n"
SECRET = b"hrw_secret"


def exchange(server: RunningServer, sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.listening_port()), timeout=20) as connection:
        # Beside the reading: a server that answers early must not be waited for by a sender that waits for it.
        sender = threading.Thread(target=_send, args=(connection, sent))
        sender.start()
        received = b""
        while piece := connection.recv(65536):
            received += piece
        sender.join(20)
        assert not sender.is_alive()
    return received


def _send(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)


def problem_in(received: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body), "one answer and nothing behind it"
    document = json.loads(body)
    assert set(document) == {"error"}
    assert document["error"]["message"]
    assert document["error"]["remedy"]
    return int(lines[0].split()[1]), document["error"]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (
            b"GET /api/v1/models?token=" + SECRET + b"x" * LONGEST_LINE + b" HTTP/1.1\r\n" + HOST + b"\r\n",
            414,
            "address_too_long",
        ),
        (b"GET /" + b"x" * 700_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "address_too_long"),
        (b"x" * 20_000, 414, "address_too_long"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 9000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"A%d: b\r\n" % n for n in range(101)) + b"\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 900_000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"nonsense " + SECRET + b"\r\n\r\n", 400, "malformed_request"),
        (b"G\x00T / HTTP/1.1\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400, "malformed_request"),  # TLS
        (b"GET / HTTP/1.1\r\nA b: " + SECRET + b"\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400, "malformed_request"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n", 400, "malformed_request"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400, "malformed_request"),
        (
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "malformed_request",
        ),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzipped\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Expect: a miracle\r\n\r\n", 400, "malformed_request"),
    ],
)
def test_every_way_of_writing_http_wrongly(server: RunningServer, sent: bytes, status: int, code: str) -> None:
    received = exchange(server, sent)
    assert b"<html" not in received
    assert SECRET not in received
    answered, problem = problem_in(received)
    assert (answered, problem["code"]) == (status, code)
    assert SECRET.decode() not in server.process.log_text()


@pytest.mark.parametrize("body", [b"zz\r\n", b"3\r\nabcdef\r\n", b"1;\x00=\r\na\r\n", b"5\r\nab"])
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"POST /api/v1/models HTTP/1.1\r\n", b"application/json"),
        (b"PUT /api/v1/blobs/sha256:" + b"0" * 64 + b" HTTP/1.1\r\n", b"application/octet-stream"),
    ],
)
def test_a_body_in_chunks_that_are_none_is_the_senders_mistake(
    server: RunningServer, line: bytes, kind: bytes, body: bytes
) -> None:
    fields = [HOST, b"Authorization: Bearer " + server.owner_token.encode() + b"\r\n", b"Content-Type: " + kind + b"\r\n"]
    received = exchange(server, line + b"".join(fields) + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert received.startswith(b"HTTP/1.1 400 "), received
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "malformed_request"


def test_the_longest_line_that_is_taken_is_answered_by_the_api(server: RunningServer) -> None:
    line = b"GET /api/v1/" + b"x" * (LONGEST_LINE - 100) + b" HTTP/1.1\r\n"
    received = exchange(server, line + HOST + b"Connection: close\r\n\r\n")
    assert b'"code":"' in received
    assert b"address_too_long" not in received


def test_a_second_request_on_the_connection_that_is_none(server: RunningServer) -> None:
    received = exchange(server, b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\nnonsense\r\n\r\n")
    first, second = received.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200")
    status, problem = problem_in(b"HTTP/1.1 " + second)
    assert (status, problem["code"]) == (400, "malformed_request")


def test_a_body_that_nobody_read_and_that_is_no_chunks_gets_no_second_answer(server: RunningServer) -> None:
    head = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    received = exchange(server, head + b"no size\r\nx\r\n")
    assert received.count(b"HTTP/1.1 ") == 1


def test_whoever_does_not_read_the_answer_keeps_no_thread(server: RunningServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.listening_port()), timeout=20) for _ in range(30)]
    try:
        for connection in idle:
            connection.sendall(b"nonsense\r\n\r\n")
        with server.client() as api:
            wait_for(lambda: api.get("/healthz").status_code == 200, what="an answer to somebody else")
    finally:
        for connection in idle:
            connection.close()


def test_nonsense_by_the_hundred_is_a_line_in_the_log_not_a_hundred(server: RunningServer) -> None:
    for _ in range(100):
        assert problem_in(exchange(server, b"nonsense\r\n\r\n"))[0] == 400
    lines = [line for line in server.process.log_text().splitlines() if "cannot be read: malformed_request" in line]
    assert len(lines) < 20, "one every ten seconds, however long all this took"
