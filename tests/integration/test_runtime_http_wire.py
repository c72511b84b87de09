"""A real scoring server, its HTTP as callers and a balancer use and abuse it: no worker ends by it, no answer is another's."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import scoring_models as models
from tests.fixtures.parts import search_path
from tests.fixtures.real_process import RealProcess
from tests.front_door import answers_in, read_all
from tests.scoring_server import ScoringServer
from tests.waiting import accepts_connections, free_port, wait_for

ROW = b'{"data": [[1, 2]]}'
LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    folder = tmp_path_factory.mktemp("wire")
    with ScoringServer(folder, "--model", models.echo(), "--max-body-bytes", "50000000") as running:
        yield running


@pytest.fixture(scope="module")
def balancer(server: ScoringServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an HAProxy that takes whatever it can and shares its connections to the server between callers."""
    folder = tmp_path_factory.mktemp("haproxy")
    port = free_port()
    (folder / "haproxy.cfg").write_text(
        f"""
global
    stats socket {folder}/sock
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    http-reuse always
    option accept-invalid-http-request
frontend all
    bind 127.0.0.1:{port}
    default_backend one
backend one
    server a 127.0.0.1:{server.port} maxconn 4
"""
    )
    process = RealProcess(
        ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], log=folder / "haproxy.log", env={"PATH": search_path()}
    )
    process.start()
    try:
        process.wait_until(lambda: accepts_connections(port), what="the balancer")
        yield port
    finally:
        process.stop(first=signal.SIGUSR1, grace_s=1.0)


def score(number: int, *, close: bool = False) -> bytes:
    """One request that says who asked."""
    end = b"Connection: close\r\n" if close else b""
    return b"POST /score HTTP/1.1\r\nHost: a\r\nx-request-id: %d\r\n%bContent-Length: %d\r\n\r\n%b" % (number, end, len(ROW), ROW)


def talk(port: int, data: bytes, *, half_close: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        with contextlib.suppress(ConnectionError):
            caller.sendall(data)
            if half_close:
                caller.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            return read_all(caller)
    return b""


def test_hundreds_of_pipelined_requests_get_their_own_answers(server: ScoringServer) -> None:
    answers = answers_in(talk(server.port, b"".join(score(number) for number in range(400)) + score(400, close=True)))
    assert [(status, headers["x-request-id"]) for status, headers, _ in answers] == [(200, str(at)) for at in range(401)]
    assert {body for _, _, body in answers} == {b"[[1.0,2.0]]"}


WORDS = [
    b"POST /score HTTP/1.1\r\n",
    b"POST /v2/models/echo/infer HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Content-Length: 18\r\n",
    b"\r\n",
    ROW,
]
WORDS += [
    b"Transfer-Encoding: chunked\r\n",
    b"20\r\n",
    b"0\r\n\r\n",
    b"x-request-id: " + b"y" * 101 + b"\r\n",
    b"Expect: 100-continue\r\n",
]
WORDS += [
    b"Content-Encoding: gzip\r\n",
    b"Inference-Header-Content-Length: 5\r\n",
    b"traceparent: 00-x\r\n",
    b"GET /metrics HTTP/1.0\r\n",
]


@settings(max_examples=120, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=30)), max_size=20))
def test_no_bytes_end_a_worker(server: ScoringServer, parts: list[bytes]) -> None:
    workers = server.workers()
    for status, _, body in answers_in(talk(server.port, b"".join(parts), half_close=True)):
        assert status < 500 or status in (501, 505), body
    assert talk(server.port, LAST).startswith(b"HTTP/1.1 200 ")
    assert server.workers() == workers


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", "inputs", "x"]), inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(document=DOCUMENTS)
@pytest.mark.parametrize("path", ["/score", "/v2/models/echo/infer"])
def test_any_json_is_scored_or_the_callers_mistake(server: ScoringServer, path: str, document: object) -> None:
    answer = server.post(path, json.dumps(document))
    assert answer.status_code in (200, 400), answer.text
    answer.json()


@pytest.mark.parametrize("text", [b"[" * 10_000, b'{"data":' * 10_000, b"[" * 10_000 + b"]" * 10_000, b'"' + b"\\" * 9999])
@pytest.mark.parametrize("path", ["/score", "/v2/models/echo/infer"])
def test_deep_and_broken_json(server: ScoringServer, path: str, text: bytes) -> None:
    answer = server.post(path, text)
    assert answer.status_code == 400
    assert len(answer.text) < 1000


def test_bodies_of_many_megabytes(server: ScoringServer) -> None:
    count = 5_000_000
    tensor = {"name": "x", "datatype": "FP32", "shape": [count, 2], "parameters": {"binary_data_size": count * 8}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    done = threading.Event()
    waits: list[float] = []

    def others() -> None:
        while not done.is_set():
            waits.append(server.get("/v2/health/live").elapsed.total_seconds())

    watcher = threading.Thread(target=others)
    watcher.start()
    try:
        body, headers = head + bytes(count * 8), {"inference-header-content-length": str(len(head))}
        answer = server.post("/v2/models/echo/infer", body, headers=headers, timeout=60)
        assert answer.status_code == 200
        assert len(answer.content) > count * 8
        assert server.post("/score", b"[" + b" " * 50_000_000, timeout=60).status_code == 413
    finally:
        done.set()
        watcher.join(20)
    assert max(waits) < 1.0, "large bodies are scored beside the loop"


# Behind a balancer ------------------------------------------------------------------------------------------------------

SMUGGLERS = {
    "length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nZ\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n1\r\nZ\r\n0\r\n\r\n",
    "space before colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "quoted": b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "two lengths": b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "signed": b"Content-Length: +44\r\n\r\n",
    "underscore": b"Content_Length: 0\r\nContent-Length: 5\r\n\r\nGPOST",
    "line feed": b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "carriage return": b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "nul": b"X: y\0\r\nContent-Length: 0\r\n\r\n",
    "chunk size": b"Transfer-Encoding: chunked\r\n\r\n0x1\r\nZ\r\n0\r\n\r\n",
    "chunk extension": b"Transfer-Encoding: chunked\r\n\r\n1;\n\r\nZ\r\n0\r\n\r\n",
    "chunk end": b"Transfer-Encoding: chunked\r\n\r\n1\r\nZZ0\r\n\r\n",
    "trailer length": b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 44\r\n\r\n",
    "upgrade": b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nGPOST",
    "expect": b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nGPOST",
}


@pytest.mark.parametrize("name", SMUGGLERS)
def test_nothing_is_smuggled_past_a_balancer(server: ScoringServer, balancer: int, name: str) -> None:
    hidden = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    before = requests_scored(server)
    text = talk(balancer, b"POST /score HTTP/1.1\r\nHost: a\r\n" + SMUGGLERS[name] + hidden + LAST, half_close=True)
    # Each caller behind it, on connections that are shared, gets its own answer: nobody finds the smuggler's.
    for number in range(6):
        ((status, headers, _),) = answers_in(talk(balancer, score(number, close=True)))
        assert (status, headers["x-request-id"]) == (200, str(number))
    assert requests_scored(server) == before + 6
    # What the smuggler itself sees of it is a pipelined 404 at most, in its own connection.
    assert text.count(b"HTTP/1.1 ") <= 4


def requests_scored(server: ScoringServer) -> float:
    return server.metric('hedgerow_requests_total{route="score",status="200"}')


def test_a_balancers_health_checks_and_keep_alive(server: ScoringServer, balancer: int) -> None:
    answers = answers_in(talk(balancer, b"".join(score(number) for number in range(20)) + score(20, close=True)))
    assert [headers["x-request-id"] for _, headers, _ in answers] == [str(at) for at in range(21)]
    assert talk(server.port, b"OPTIONS / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 ")
    wait_for(lambda: server.get("/").status_code == 200, what="health")


def test_ipv6(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo(), "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert server.score([[1, 2]]).json() == [[1.0, 2.0]]
