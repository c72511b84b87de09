"""The local port over real sockets on a real buffer: what is answered, and only after it is on the disk."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import BufferFull, BufferUnwritable
from edge_agent.telemetry.http_requests import HEAD_BYTES_MAX, HEADERS_MAX
from edge_agent.telemetry.intake import Intake
from edge_agent.telemetry.outbox import Entry, Limits, Outbox
from edge_agent.telemetry.tokens import Tokens
from tests.fixtures.local_port import LIMIT, Ask, bodies, intake_of


def test_a_message_is_stored_byte_for_byte_before_the_answer(ask: Ask, tmp_path: Path) -> None:
    body = '{"t": 1.50,\n "ü": [1e40, 99999999999999999999]}'.encode()
    assert ask(body) == (201, {"stream": "telemetry", "sequence": 1})
    assert bodies(tmp_path / "outbox.sqlite") == [body.decode()]


def test_a_repeat_of_a_known_id_is_answered_with_what_was_stored(ask: Ask, outbox: Outbox) -> None:
    assert ask(b"1", idempotency_key="k")[0] == 201
    assert ask(b"2")[1]["sequence"] == 2
    assert ask(b"1", idempotency_key="k") == (200, {"stream": "telemetry", "sequence": 1})
    assert outbox.totals.queued_messages == 2


def test_streams_are_numbered_apart(ask: Ask) -> None:
    assert ask(path="/telemetry?stream=alarms")[1] == {"stream": "alarms", "sequence": 1}
    assert ask()[1] == {"stream": "telemetry", "sequence": 1}
    assert ask(path="/telemetry?stream=alarms")[1] == {"stream": "alarms", "sequence": 2}


@pytest.mark.parametrize(
    ("status", "key", "request_parts"),
    [
        (401, "not_a_module", {"token": ""}),
        (401, "not_a_module", {"token": "m.0000"}),
        (401, "not_a_module", {"token": "m"}),
        (400, "message_refused", {"body": b"{not json"}),
        (400, "message_refused", {"body": b"NaN"}),
        (400, "message_refused", {"body": b'"\xff"'}),
        (400, "message_refused", {"body": b""}),
        (400, "message_refused", {"body": b"[" * 1900}),
        (400, "message_refused", {"body": b"[" * 999 + b"]" * 999}),
        (400, "message_refused", {"idempotency_key": "k" * 201}),
        (400, "invalid_name", {"path": "/telemetry?stream=../../etc"}),
        (400, "message_refused", {"host": "evil.example"}),
        (413, "message_too_large", {"body": b'"' + b"x" * LIMIT + b'"'}),
        (404, "no_such_local_path", {"path": "/other"}),
        (404, "no_such_local_path", {"path": "/telemetry", "method": "GET"}),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_stored(
    ask: Ask, outbox: Outbox, status: int, key: str, request_parts: dict[str, Any]
) -> None:
    body = request_parts.pop("body", b"{}")
    answer, document = ask(body, **request_parts)
    assert (answer, document["error"]["key"]) == (status, key)
    assert document["error"]["remedy"]
    assert outbox.totals.queued_messages == 0


def test_a_module_speaks_for_itself_only(ask: Ask, tokens: Tokens, tmp_path: Path) -> None:
    forged = "other." + tokens.of("m").rpartition(".")[2]
    assert ask(token=forged)[0] == 401
    assert ask(token=tokens.of("other"))[0] == 201
    with sqlite3.connect(tmp_path / "outbox.sqlite") as db:
        assert db.execute("SELECT module FROM messages").fetchall() == [("other",)]
    db.close()


def test_metrics_need_no_token_but_a_name_of_this_device(ask: Ask) -> None:
    assert ask(path="/metrics", method="GET", token="") == (200, {"text": "up 1\n"})
    assert ask(path="/metrics", method="GET", host="rebound.example")[0] == 400


def test_keep_alive_serves_many_messages_and_survives_a_refused_one(intake: Intake, tokens: Tokens) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", intake.port, timeout=30)
    for body, expected in [(b"1", 201), (b"nope", 400), (b"2", 201)]:
        connection.request("POST", "/telemetry", body, {"authorization": f"Bearer {tokens.of('m')}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == expected
    connection.close()


def raw(intake: Intake, *parts: bytes) -> bytes:
    """What comes back until the connection is ended, for bytes as they are."""
    with socket.create_connection(("127.0.0.1", intake.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        with contextlib.suppress(OSError):  # it may have ended already
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /metrics HTTP/2.0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost : 127.0.0.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n folded: 1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nx: y\ncontent-length: 5\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nx: y\rcontent-length: 5\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nx: y\0z\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nHost: localhost\r\n\r\n",
        b"POST /telemetry HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n11",
        b"POST /telemetry HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * (HEADERS_MAX + 1) + b"\r\n",
        b"GET /" + b"x" * (HEAD_BYTES_MAX + 70_000),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_ends_the_connection(intake: Intake, request_bytes: bytes) -> None:
    answer = raw(intake, request_bytes + b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"\r\n\r\n") == 1


def test_requests_in_pieces_and_one_behind_the_other_are_answered_in_order(
    intake: Intake, tokens: Tokens, outbox: Outbox
) -> None:
    head = f"POST /telemetry HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: Bearer {tokens.of('m')}\r\nContent-Length: 3\r\n"
    whole = (head + "\r\n[1]" + head + "\r\n[2]" + head + "Connection: close\r\n\r\n[3]").encode()
    answer = raw(intake, *(whole[at : at + 7] for at in range(0, len(whole), 7)))
    assert [answer.count(f'"sequence":{number}}}'.encode()) for number in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert answer.count(b"connection: close") == 1
    assert outbox.totals.queued_messages == 3


def test_a_client_that_waits_to_be_told_to_send_is_told(intake: Intake, tokens: Tokens) -> None:
    head = f"POST /telemetry HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {tokens.of('m')}\r\n"
    with socket.create_connection(("127.0.0.1", intake.port), timeout=20) as connection:
        connection.sendall(f"{head}content-length: 1\r\nexpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"1")
        assert connection.recv(100).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/telemetry?stream=s", "application/x-ndjson", b'{"a": 1.50}\n\n[2]\n"\xc3\xbc"\n'),
        ("/telemetry?stream=s&batch=array", "application/json", b'[{"a": 1.50}, [2],"\xc3\xbc"]'),
    ],
)
def test_many_messages_in_one_request_are_stored_as_they_were_written(
    ask: Ask, tmp_path: Path, path: str, content_type: str, body: bytes
) -> None:
    first = ask(body, path=path, content_type=content_type, idempotency_key="k")
    assert first == (201, {"stream": "s", "sequence": 1, "messages": 3})
    assert bodies(tmp_path / "outbox.sqlite") == ['{"a": 1.50}', "[2]", '"ü"']
    assert ask(body, path=path, content_type=content_type, idempotency_key="k") == (200, first[1])
    assert len(bodies(tmp_path / "outbox.sqlite")) == 3


@pytest.mark.parametrize(
    ("path", "content_type", "body", "status"),
    [
        ("/telemetry", "application/x-ndjson", b"1\nnope\n", 400),
        ("/telemetry", "application/x-ndjson", b"\n\n", 400),
        ("/telemetry", "application/x-ndjson", b"1\n" * 1001, 400),
        ("/telemetry", "application/x-ndjson", b'1\n"' + b"x" * LIMIT + b'"\n', 413),
        ("/telemetry", "application/x-ndjson", b" " * 1_100_000, 413),
        ("/telemetry?batch=array", "application/json", b"{}", 400),
        ("/telemetry?batch=array", "application/json", b"[]", 400),
        ("/telemetry?batch=array", "application/json", b"[1", 400),
        ("/telemetry?batch=array", "application/json", b"[" + b"1," * 1000 + b"1]", 400),
    ],
)
def test_a_batch_with_something_wrong_is_refused_whole(
    ask: Ask, outbox: Outbox, path: str, content_type: str, body: bytes, status: int
) -> None:
    assert ask(body, path=path, content_type=content_type)[0] == status
    assert outbox.totals.queued_messages == 0


def test_an_address_that_cannot_be_read_is_answered(intake: Intake) -> None:
    with socket.create_connection(("127.0.0.1", intake.port), timeout=30) as connection:
        connection.sendall(b"GET http://[::1/metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_blanks_in_a_header_cost_no_more_than_other_signs(intake: Intake) -> None:
    """With the square of their number, these would keep the whole agent busy for minutes."""
    head = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nx: \t a" + b" " * 31_000 + b"b \r\n\r\n"
    with socket.create_connection(("127.0.0.1", intake.port), timeout=30) as connection:
        began_s = time.monotonic()
        for _ in range(30):
            connection.sendall(head)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began_s < 60


@pytest.mark.parametrize(
    ("policy", "statuses", "dropped"), [("drop-newest", [201] * 3 + [507] * 5, 0), ("drop-oldest", [201] * 8, 5)]
)
def test_a_full_buffer_refuses_or_drops_the_oldest(
    tmp_path: Path, tokens: Tokens, policy: Any, statuses: list[int], dropped: int
) -> None:
    outbox = Outbox(tmp_path / policy, Limits(5000, 1000, policy), lambda: None, lambda _problem: None)
    intake = intake_of(outbox, tokens)
    body = '"' + "x" * 1200 + '"'
    connection = http.client.HTTPConnection("127.0.0.1", intake.start(0), timeout=30)
    answers = []
    for _ in range(8):
        connection.request("POST", "/telemetry", body, {"authorization": f"Bearer {tokens.of('m')}"})
        answer = connection.getresponse()
        answer.read()
        answers.append(answer.status)
    connection.close()
    assert answers == statuses
    assert outbox.totals.kept_bytes <= 5000
    assert outbox.totals.dropped == dropped
    intake.close()
    outbox.close()


def test_what_comes_at_the_same_time_is_stored_or_refused_each_for_itself(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", Limits(5000, 1000, "drop-newest"), lambda: None, lambda _problem: None)
    large, small = '"' + "x" * 3000 + '"', "1"
    bodies_and_keys = [(large, None), (small, "k"), (large, None), (small, "k"), (small, None)]
    outcomes = outbox.submit_each([[Entry("telemetry", "m", 1, body, key)] for body, key in bodies_and_keys]).result()
    assert [isinstance(outcome, BufferFull) for outcome in outcomes] == [False, False, True, False, False]
    receipts = [outcome[0] for outcome in outcomes if isinstance(outcome, list)]
    assert [(receipt.sequence, receipt.repeated) for receipt in receipts] == [(1, False), (2, False), (2, True), (3, False)]
    assert bodies(tmp_path / "o") == [large, small, small]
    outbox.close()
    refused = outbox.submit_each([[Entry("telemetry", "m", 1, small)]])
    assert isinstance(refused.exception(), BufferUnwritable)


def test_the_port_is_kept_and_a_taken_one_is_replaced(outbox: Outbox, tokens: Tokens) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        intake = intake_of(outbox, tokens)
        assert intake.start(taken) not in (0, taken)
        intake.close()
