"""A real scoring server and callers that mean it no good: each gets an answer of its own, everybody else theirs."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.packager_builders import write_onnx_model
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for

_TENSOR: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    folder = tmp_path_factory.mktemp("hostile")
    write_onnx_model(folder / "model")
    arguments = ("--model", folder / "model" / "model.onnx", "--name", "adder", "--max-concurrent", "2", "--max-queue", "2")
    with ScoringServer(folder, *arguments, "--receive-timeout-ms", "1500") as running:
        yield running


def spoken(server: ScoringServer, text: bytes) -> bytes:
    """Everything that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as caller:
        caller.sendall(text)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := caller.recv(65536):
                parts.append(part)
        return b"".join(parts)


@pytest.mark.parametrize("shape", [[1] * 100 + [3], [3, 2**70], [0, 2**70], [2**63, 3]])
def test_shapes_that_no_array_can_have(server: ScoringServer, shape: list[int]) -> None:
    data = [] if 0 in shape else [1, 2, 3]
    answer = server.infer("adder", {"inputs": [{**_TENSOR, "shape": shape, "data": data}]})
    assert answer.status_code == 400, answer.text
    head = json.dumps({"inputs": [{**_TENSOR, "shape": shape, "data": None, "parameters": {"binary_data_size": len(data) * 4}}]})
    answer = server.post(
        "/v2/models/adder/infer",
        head.encode() + bytes(len(data) * 4),
        headers={"inference-header-content-length": str(len(head)), "connection": "close"},
    )
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("[1, 2, true]", "it has true or false among its numbers"),
        ("[1.5, 2.5, false]", "it has true or false among its numbers"),
        ("[" * 70 + "1" + "]" * 70, "its lists are nested {} deep"),
    ],
)
def test_numbers_that_are_none_are_refused_in_words_by_both_faces(server: ScoringServer, data: str, says: str) -> None:
    score = server.post("/score", f'{{"data": [{data}]}}', headers={"content-type": "application/json"})
    assert score.status_code == 400, score.text
    assert says.format(71) in score.json()["message"]
    tensor = json.dumps({**_TENSOR, "data": "here"}).replace('"here"', data)
    infer = server.post("/v2/models/adder/infer", f'{{"inputs": [{tensor}]}}', headers={"content-type": "application/json"})
    assert infer.status_code == 400, infer.text
    assert says.format(70) in infer.json()["error"]


def test_a_chunk_without_a_size_is_the_callers_mistake(server: ScoringServer) -> None:
    head = b"POST /score HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = spoken(server, head + b"zz\r\n")
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"x-request-id" in answer.lower()


def test_half_a_request_ends_after_the_receive_timeout(server: ScoringServer) -> None:
    answer = spoken(server, b"POST /score HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 50\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b"ended after 1 of 50 bytes" in answer


def test_half_a_head_ends_after_the_receive_timeout(server: ScoringServer) -> None:
    assert b" 200 " not in spoken(server, b"POST /score HTTP/1.1\r\nHost: a\r\nX-")


def test_many_callers_that_never_finish_do_not_keep_others_out(server: ScoringServer) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            caller.sendall(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n{")
        assert server.get("/v2/health/live").status_code == 200
        wait_for(lambda: server.score({"data": [[1, 2, 3]]}).status_code == 200, timeout_s=20, what="an answer beside them")
