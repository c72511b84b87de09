"""The local port under those who want too much of it, or have no right to it any more."""

from __future__ import annotations

import http.client
import json
import socket
import threading

from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.admission import LEAVING_S, Admission
from edge_agent.telemetry.batches import BATCH_BYTES_MAX
from edge_agent.telemetry.bodies import BODIES_BYTES_MAX
from edge_agent.telemetry.http_server import CONNECTIONS_MAX, CONNECTIONS_OF_ONE_MAX
from edge_agent.telemetry.intake import APART_OF_ONE_MAX, Intake
from edge_agent.telemetry.module_inputs import ModuleInputs
from edge_agent.telemetry.outbox import Outbox
from edge_agent.telemetry.reception import STREAMS_MAX, STREAMS_OF_ONE_MAX, Reception
from edge_agent.telemetry.routing.router import router_of
from edge_agent.telemetry.tokens import Tokens
from hedgerow.clock import SystemClock
from tests.fixtures.local_port import Ask, intake_of
from tests.waiting import wait_for


class ByHand(SystemClock):
    """Time that passes when a test says so."""

    passed_s = 0.0

    def monotonic_s(self) -> float:
        return self.passed_s


def test_the_number_of_streams_is_bounded_and_no_module_takes_them_all(ask: Ask, tokens: Tokens) -> None:
    for number in range(STREAMS_OF_ONE_MAX):
        assert ask(path=f"/telemetry?stream=s{number}")[0] == 201
    status, answer = ask(path="/telemetry?stream=one-more")
    assert status == 400
    assert "module m has sent to 8 streams" in answer["error"]["message"]
    assert ask(path="/telemetry?stream=s1")[0] == 201
    assert ask(path="/telemetry?stream=telemetry")[0] == 201
    for number in range(STREAMS_OF_ONE_MAX, STREAMS_MAX - 1):
        other = tokens.of(f"other-{number // STREAMS_OF_ONE_MAX}")
        assert ask(path=f"/telemetry?stream=s{number}", token=other)[0] == 201
    assert ask(path="/telemetry?stream=one-more", token=tokens.of("latest"))[0] == 400
    assert ask(path="/telemetry?stream=s1", token=tokens.of("latest"))[0] == 201


def test_a_module_that_keeps_all_connections_makes_room(intake: Intake, ask: Ask) -> None:
    """Silent, or with half a request each: heartbeats of all other modules depend on it."""
    kept = [socket.create_connection(("127.0.0.1", intake.port)) for _ in range(CONNECTIONS_MAX)]
    try:
        for number, connection in enumerate(kept):
            connection.sendall(b"POST /telemetry HTTP/1.1\r\nhost: localhost\r\n"[: number % 40])
        assert ask()[0] == 201
        assert ask()[0] == 201
    finally:
        for connection in kept:
            connection.close()


def test_a_module_that_also_fills_the_backlog_does_not_keep_the_others_out(intake: Intake, ask: Ask) -> None:
    """It opens connections faster than they are ended; a heartbeat that comes behind them all must not wait for a minute."""
    kept = [socket.create_connection(("127.0.0.1", intake.port), timeout=30) for _ in range(CONNECTIONS_MAX + 100)]
    try:
        assert ask(path="/heartbeat")[0] == 200
    finally:
        for connection in kept:
            connection.close()


def test_requests_that_wait_leave_room_for_those_of_others(outbox: Outbox, tokens: Tokens) -> None:
    """Pages that are asked for by nobody we know take long; a module's poll is answered all the same."""
    asked, goes_on = threading.Semaphore(0), threading.Event()

    def exposition() -> str:
        asked.release()
        goes_on.wait(60)
        return "up 1\n"

    metrics = Metrics()
    reception = Reception(outbox, router_of(None, "porch"), metrics)
    intake = Intake(
        reception, ModuleInputs(outbox), tokens, SystemClock(), metrics, max_message_bytes=2000, exposition=exposition
    )
    port = intake.start(0)

    def get(path: str, module: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path, headers={"authorization": f"Bearer {tokens.of(module)}"})
        return connection

    begun = [get("/metrics", "") for _ in range(APART_OF_ONE_MAX)]
    assert all(asked.acquire(timeout=30) for _ in begun)
    other, poll = get("/metrics", ""), get("/inputs/in", "m")
    assert [other.getresponse().status, poll.getresponse().status] == [503, 200]
    goes_on.set()
    assert {connection.getresponse().status for connection in begun} == {200}
    for connection in [*begun, other, poll]:
        connection.close()
    intake.close()


def test_silent_connections_do_not_lock_others_out_for_ever(intake: Intake, ask: Ask) -> None:
    silent = [socket.create_connection(("127.0.0.1", intake.port)) for _ in range(CONNECTIONS_MAX)]
    try:
        assert ask()[0] == 201  # when one of them was ended
    finally:
        for connection in silent:
            connection.close()


def test_one_module_cannot_keep_the_others_out(intake: Intake, ask: Ask, tokens: Tokens) -> None:
    """It says so much, on so many connections, that no place would be left; each of them has proven whose it is."""
    head = f"POST /heartbeat HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {tokens.of('greedy')}\r\n\r\n".encode()
    kept: list[socket.socket] = []
    try:
        for _ in range(CONNECTIONS_OF_ONE_MAX):
            kept.append(socket.create_connection(("127.0.0.1", intake.port), timeout=30))
            kept[-1].sendall(head)
            assert kept[-1].recv(1000).startswith(b"HTTP/1.1 200 ")
        status, answer = ask(method="POST", path="/heartbeat", token=tokens.of("greedy"))
        assert (status, answer["error"]["key"]) == (429, "too_many_local_connections")
        assert "greedy" in answer["error"]["message"]
        assert ask(path="/heartbeat")[0] == 200
        kept.pop().close()
        wait_for(lambda: ask(path="/heartbeat", token=tokens.of("greedy"))[0] == 200, what="a place of its own again")
    finally:
        for connection in kept:
            connection.close()


def test_bodies_that_are_here_in_part_are_bounded_and_large_ones_wait_their_turn(
    intake: Intake, ask: Ask, tokens: Tokens, outbox: Outbox
) -> None:
    """Each module announces a megabyte and sends two bytes of it: the next one waits, and gets in when one of them goes."""
    size = BATCH_BYTES_MAX
    heartbeat = f"POST /heartbeat HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {tokens.of('idle')}\r\n\r\n".encode()
    idle = socket.create_connection(("127.0.0.1", intake.port), timeout=30)
    idle.sendall(heartbeat)
    assert idle.recv(1000).startswith(b"HTTP/1.1 200 ")
    begun = [idle]
    try:
        for number in range(BODIES_BYTES_MAX // size + 2):
            head = (
                f"POST /telemetry HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {tokens.of(f'm{number}')}\r\n"
                f"content-type: application/x-ndjson\r\ncontent-length: {size}\r\n\r\n"
            )
            begun.append(socket.create_connection(("127.0.0.1", intake.port), timeout=30))
            begun[-1].sendall(head.encode() + b"1\n")
        assert ask(b"2")[0] == 201  # a small one waits for nobody
        # The first ones give up their places within seconds, so that this one is taken at last.
        large = b'"' + b"x" * 1000 + b'"\n'
        assert ask(large * 100, content_type="application/x-ndjson")[0] == 201
        assert outbox.totals.queued_messages == 101
        # Who keeps no room was not made to give it up.
        idle.sendall(heartbeat)
        assert idle.recv(1000).startswith(b"HTTP/1.1 200 ")
    finally:
        for connection in begun:
            connection.close()


def test_requests_under_way_are_answered_when_the_agent_ends(outbox: Outbox, tokens: Tokens) -> None:
    inputs = ModuleInputs(outbox)
    intake = intake_of(outbox, tokens, inputs=inputs)
    with socket.create_connection(("127.0.0.1", intake.start(0)), timeout=30) as connection:
        head = f"GET /inputs/in?wait_s=50 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {tokens.of('m')}\r\n\r\n"
        connection.sendall(head.encode())
        wait_for(lambda: inputs.waiting == 1, what="a poll that waits")
        intake.close()
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_token_is_good_while_its_module_belongs_here(outbox: Outbox) -> None:
    clock = ByHand()
    admission = Admission(clock)
    known = Tokens(b"k" * 32, admission.admits)
    intake = intake_of(outbox, known)
    port = intake.start(0)

    def told(module: str) -> tuple[int, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/telemetry", b"1", {"authorization": f"Bearer {known.of(module)}"})
        answer = connection.getresponse()
        key = json.loads(answer.read()).get("error", {}).get("key")
        connection.close()
        return answer.status, key

    assert told("early") == (201, None)  # nobody knows yet what belongs here
    admission.follow({"m", "leaves"}, 10.0)
    clock.passed_s += LEAVING_S + 1
    assert [told("m"), told("early")] == [(201, None), (403, "module_gone")]
    admission.follow({"m"}, 10.0)
    assert told("leaves") == (201, None)  # it is being stopped
    clock.passed_s += LEAVING_S + 11
    assert [told("m"), told("leaves")] == [(201, None), (403, "module_gone")]
    admission.follow({"m", "leaves"}, 10.0)
    assert told("leaves") == (201, None)
    intake.close()
