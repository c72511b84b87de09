"""One attempt to deliver an event, to receivers of every kind: it ends in time, with an answer or with a sentence."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hedgerow.clock import SystemClock
from hedgerow.contracts.document import decode
from hedgerow.contracts.events import Actor, Event
from hedgerow.contracts.webhook_signature import is_genuine
from hedgerow.egress import EgressPolicy
from registry.controller.webhooks.attempt import Attempts, Trust
from registry.controller.webhooks.verdict import Answered, Failed, Rules
from registry.store.webhooks import Claim
from registry.vault import Sealed
from tests.registry_stores import NOW
from tests.waiting import free_port
from tests.webhook_receivers import make_ca, receiver, rude_receiver

LOCAL = EgressPolicy.parse("127.0.0.1")
SECRET = "whsec_test"
RULES = Rules(connect_s=1.0, timeout_s=1.0)


def claim(url: str) -> Claim:
    event = Event(
        cursor="aaaaaaaa.0.7",
        number=7,
        at=NOW,
        kind="model.registered",
        subject="model/iris:3",
        actor=Actor(id="1", name="ann", role="owner"),
        details={"text": "ü" * 1000},
    )
    return Claim("hook", url, Sealed("k", b""), event, "aaaaaaaa-hook-7", 1, None)


def attempt(
    url: str, *, policy: EgressPolicy = LOCAL, trust: Trust | None = None, look_up: Callable[[str, int], list[str]] | None = None
) -> Answered | Failed:
    more = {"look_up": look_up} if look_up else {}
    attempts = Attempts(policy, trust or Trust(None), RULES, SystemClock(), lambda _claimed: SECRET, **more)
    return attempts.make(claim(url), lambda _stream: None)


def test_a_receiver_gets_the_event_and_its_signature() -> None:
    with receiver() as there:
        assert attempt(f"{there.url}?who=me") == Answered(200)
    (got,) = there.got
    assert got.path == "/hook?who=me"
    assert decode(got.body, Event).subject == "model/iris:3"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["host"] == there.url.split("/")[2]
    assert got.headers["hedgerow-event"] == "model.registered"
    assert got.headers["hedgerow-delivery"] == "aaaaaaaa-hook-7"
    now = SystemClock().now()
    assert is_genuine(SECRET, got.headers["hedgerow-signature"], got.body, now)
    assert not is_genuine("whsec_other", got.headers["hedgerow-signature"], got.body, now)
    assert not is_genuine(SECRET, got.headers["hedgerow-signature"], got.body + b" ", now)


@pytest.mark.parametrize("status", [200, 201, 204, 299, 301, 307, 400, 404, 410, 500, 503])
def test_the_status_is_what_counts(status: int) -> None:
    with receiver() as there:
        there.statuses = [status]
        there.headers = {"location": "http://127.0.0.1:1/elsewhere", "retry-after": "7"}
        assert attempt(there.url) == Answered(status, 7.0)
        assert len(there.got) == 1, "a redirect is not followed"


def answering(*pieces: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def behave(stream: socket.socket, _stop: threading.Event) -> None:
        for piece in pieces:
            stream.sendall(piece)

    return behave


def hanging(stream: socket.socket, stop: threading.Event) -> None:
    stop.wait(30)


def dripping(stream: socket.socket, stop: threading.Event) -> None:
    """A byte now and then: no single read takes long, all of them would take for ever."""
    stream.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while not stop.wait(0.05):
        stream.sendall(b"y")


def endless_fields(stream: socket.socket, stop: threading.Event) -> None:
    stream.sendall(b"HTTP/1.1 200 OK\r\n")
    while not stop.is_set():
        stream.sendall(b"x: y\r\n" * 1000)


def endless_body(stream: socket.socket, stop: threading.Event) -> None:
    stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not stop.is_set():
        stream.sendall(b"x" * 65536)


def body_that_hangs(stream: socket.socket, stop: threading.Event) -> None:
    stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    stop.wait(30)


def endless_continue(stream: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def resetting(stream: socket.socket, _stop: threading.Event) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (hanging, "did not answer within 1 s"),
        (dripping, "did not answer within 1 s"),
        (endless_fields, "more than 16 kB"),
        (endless_continue, "more than 16 kB"),
        (resetting, "cannot be reached|without an answer"),
        (answering(), "without an answer"),
        (answering(b"HTTP/1.1 200"), "without an answer"),
        (answering(b"HTTP/1.1 200 OK\r\nx: y\r\n"), "without an answer"),
        (answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "does not speak HTTP"),
        (answering(b"HTTP/1.1 2000 OK\r\n\r\n"), "does not speak HTTP"),
        (answering(b"HTTP/2 200\r\n\r\n"), "does not speak HTTP"),
        (answering(b"HTTP/1.1 101 Switching\r\n\r\n"), "another protocol"),
        (answering(b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n"), "does not speak HTTP"),
    ],
)
def test_rude_receivers_are_failures_in_time(behave: Callable[[socket.socket, threading.Event], None], words: str) -> None:
    with rude_receiver(behave) as url:
        begun_s = time.monotonic()
        seen = attempt(url)
        assert time.monotonic() - begun_s < 3
    assert isinstance(seen, Failed), seen
    assert any(word in seen.problem for word in words.split("|")), seen


@pytest.mark.parametrize(
    "behave",
    [
        endless_body,
        body_that_hangs,
        answering(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        answering(b"HTTP/1.0 200 OK\n\nbody"),
        answering(b"HTTP/1.1 200\r\n\r\n"),
        answering(b"HTTP/1.1 20", b"0 OK\r", b"\n\r", b"\n"),
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n"),
    ],
)
def test_odd_answers_are_answers(behave: Callable[[socket.socket, threading.Event], None]) -> None:
    with rude_receiver(behave) as url:
        begun_s = time.monotonic()
        assert attempt(url) == Answered(200)
        assert time.monotonic() - begun_s < 3


def test_an_answer_before_the_request_was_read_counts() -> None:
    """A receiver that refuses big requests answers and closes at once."""
    with rude_receiver(answering(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\n\r\n")) as url:
        assert attempt(url) == Answered(413)


def test_nobody_listens() -> None:
    seen = attempt(f"http://127.0.0.1:{free_port()}/")
    assert seen == Failed("the receiver cannot be reached: Connection refused")


def test_what_the_policy_refuses_is_not_called() -> None:
    with receiver() as there:
        seen = attempt(there.url, policy=EgressPolicy())
        assert isinstance(seen, Failed)
        assert "no public address" in seen.problem
        seen = attempt(there.url.replace("127.0.0.1", "receiver.example"), look_up=lambda *_: ["10.0.0.1"])
        assert isinstance(seen, Failed)
        assert "10.0.0.1" in seen.problem
    assert there.got == []


# --- https -------------------------------------------------------------------------------------------------------------


def test_a_certificate_of_the_given_authority_is_good(tmp_path: Path) -> None:
    ca_file, tls = make_ca(tmp_path, "127.0.0.1")
    with receiver(tls) as there:
        assert attempt(there.url, trust=Trust(ca_file)) == Answered(200)


def test_the_name_of_the_url_is_what_the_certificate_must_hold(tmp_path: Path) -> None:
    """The address was looked up by us; TLS still asks for, and checks, the name."""
    ca_file, tls = make_ca(tmp_path, "receiver.example")
    asked: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    with receiver(tls) as there:
        named = there.url.replace("127.0.0.1", "receiver.example")
        assert attempt(named, trust=Trust(ca_file), look_up=lambda *_: ["127.0.0.1"]) == Answered(200)
        assert there.got[0].headers["host"] == named.split("/")[2]
        assert asked == ["receiver.example"]
        seen = attempt(there.url, trust=Trust(ca_file))
        assert isinstance(seen, Failed)
        assert "no encrypted connection" in seen.problem
    assert len(there.got) == 1


def test_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    _, tls = make_ca(tmp_path, "127.0.0.1")
    with receiver(tls) as there:
        seen = attempt(there.url)
        assert isinstance(seen, Failed)
        assert "no encrypted connection could be made" in seen.problem
    assert there.got == []


def test_a_handshake_that_hangs_ends_in_time() -> None:
    with rude_receiver(hanging) as url:
        begun_s = time.monotonic()
        seen = attempt(url.replace("http:", "https:"))
        assert time.monotonic() - begun_s < 3
    assert isinstance(seen, Failed)
    assert "did not answer within" in seen.problem


def test_plain_http_where_https_was_asked(tmp_path: Path) -> None:
    with rude_receiver(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        seen = attempt(url.replace("http:", "https:"))
    assert isinstance(seen, Failed)
    assert "no encrypted connection" in seen.problem


def test_an_authority_file_that_is_gone_is_a_failure_of_the_attempt(tmp_path: Path) -> None:
    with rude_receiver(hanging) as url:
        seen = attempt(url.replace("http:", "https:"), trust=Trust(tmp_path / "gone.pem"))
    assert isinstance(seen, Failed)
    assert "No such file" in seen.problem
