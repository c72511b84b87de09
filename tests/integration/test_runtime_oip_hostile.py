"""Anything may come as the body of an infer request: the right status, one sentence, and the next request is answered as ever."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import scoring_models as models
from tests.oip_models import every_type, put_models
from tests.scoring_server import ScoringServer

LENGTH = "Inference-Header-Content-Length"
GOOD = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2.5]}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    folder = tmp_path_factory.mktemp("hostile")
    root = put_models(folder / "repository", echo=models.echo(), text=models.echo_text(), types=every_type())
    arguments = ("--model-repository", root, "--model-control", "uploads", "--max-body-bytes", "200000")
    with ScoringServer(folder / "s", *arguments) as running:
        running.client = httpx.Client(timeout=20.0, trust_env=False)
        yield running


def check(server: ScoringServer, answer: httpx.Response, allowed: tuple[int, ...] = (400,)) -> None:
    """An error in the protocol's shape, of one of these statuses, or a success; and then the server works as before."""
    if answer.status_code != 200:
        assert answer.status_code in allowed, (answer.status_code, answer.text)
        assert list(answer.json()) == ["error"]
        sentence = answer.json()["error"]
        assert sentence[:1].isupper() or sentence[:1] in "'\"/", sentence
        assert "Traceback" not in sentence
        assert "internal" not in sentence.lower()
    good = server.infer("echo", GOOD)
    assert good.json()["outputs"][0]["data"] == [1.5, -2.5]


quickly = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=20
)
numbers = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, 1, 255, 2**31, 2**63, 2**64 - 1, 1e39, True])
shapes = st.lists(st.integers(-3, 5) | st.sampled_from([2**31, 2**63, 2**70]), max_size=5)
parameters = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "classification", "shared_memory_region", "other"]), anything, max_size=2
)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "FP32", "INT8", "y", ""]),
        "datatype": st.sampled_from(["FP32", "INT64", "UINT64", "BYTES", "BOOL", "BF16", "FP16", ""]),
        "shape": shapes,
    },
    optional={"data": st.lists(numbers, max_size=8) | anything, "parameters": parameters},
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3)},
    optional={
        "id": st.text(max_size=10),
        "parameters": st.dictionaries(st.sampled_from(["binary_data_output", "priority", "x"]), anything, max_size=2),
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["y", "out FP32", "z"])}, optional={"parameters": parameters}),
            max_size=3,
        ),
    },
)


@quickly
@given(st.binary(max_size=300))
def test_any_bytes(server: ScoringServer, body: bytes) -> None:
    check(server, server.post("/v2/models/echo/infer", body))


@quickly
@given(anything)
def test_any_json(server: ScoringServer, document: object) -> None:
    check(server, server.post("/v2/models/text/infer", json.dumps(document)))


@quickly
@given(st.sampled_from(["echo", "text", "types"]), requests)
def test_requests_that_are_nearly_right(server: ScoringServer, model: str, document: dict[str, Any]) -> None:
    check(server, server.post(f"/v2/models/{model}/infer", json.dumps(document)))


@quickly
@given(requests, st.binary(max_size=64), st.integers(-1, 40) | st.sampled_from(["", "x", "9" * 30, "0", "²"]))
def test_binary_requests_that_are_nearly_right(server: ScoringServer, document: dict[str, Any], tail: bytes, off: object) -> None:
    head = json.dumps(document).encode()
    length = len(head) + off - 10 if isinstance(off, int) else off
    headers = {LENGTH: str(length).encode("latin-1", "replace")}
    check(server, server.post("/v2/models/echo/infer", head + tail, headers=headers))


@quickly
@given(st.binary(max_size=100), st.sampled_from(["echo", "text", "types"]))
def test_raw_requests(server: ScoringServer, body: bytes, model: str) -> None:
    check(server, server.post(f"/v2/models/{model}/infer", body, headers={LENGTH: "0"}))


@quickly
@given(st.lists(st.binary(max_size=10), max_size=5), st.integers(-9, 9), shapes)
def test_texts_in_binary(server: ScoringServer, texts: list[bytes], off: int, shape: list[int]) -> None:
    packed = b"".join(struct.pack("<I", max(len(text) + off, 0)) + text for text in texts)
    tensor = {"name": "x", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    check(server, server.post("/v2/models/text/infer", head + packed, headers={LENGTH: str(len(head))}))


@quickly
@given(anything, st.sampled_from(["index", "models/echo/load", "models/none/unload", "models/new/load"]))
def test_repository_requests(server: ScoringServer, document: object, path: str) -> None:
    body = json.dumps({"parameters": document} if path != "index" else document)
    check(server, server.post(f"/v2/repository/{path}", body), (400, 404))


@quickly
@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "gzip, gzip", "identity", "é"]))
def test_bodies_that_say_they_are_packed(server: ScoringServer, body: bytes, encoding: str) -> None:
    headers = {"content-encoding": encoding.encode("latin-1")}
    check(server, server.post("/v2/models/echo/infer", body, headers=headers), (400, 415))


@pytest.mark.parametrize("path", ["/v2/models/echo/infer", "/score"])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_bomb_is_refused_before_it_fills_the_memory(server: ScoringServer, path: str, pack: Any) -> None:
    bomb = pack(b" " * 500_000_000)
    before = server.metric('hedgerow_resident_memory_bytes{process="worker"}')
    encoding = "gzip" if pack is gzip.compress else "deflate"
    # The bomb itself is over the limit for bodies once more; a smaller one that still unfolds to 10 MB is not.
    for body, status in ((bomb, 413), (pack(b" " * 10_000_000), 413), (pack(json.dumps(GOOD).encode().ljust(200_000)), 200)):
        answer = server.post(path, body, headers={"content-encoding": encoding})
        if path == "/score" and status == 200:
            continue
        assert answer.status_code == status, answer.text
    assert server.metric('hedgerow_resident_memory_bytes{process="worker"}') - before < 30_000_000
    check(server, server.infer("echo", GOOD))


@pytest.mark.parametrize("accepted", ["gzip", "deflate", "br, gzip;q=0.5", "*"])
@pytest.mark.parametrize("rows", [1, 500, 4_000])
def test_answers_are_packed_when_asked_and_worth_it(server: ScoringServer, accepted: str, rows: int) -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": [0.5] * (2 * rows)}]}
    answer = server.post("/v2/models/echo/infer", json.dumps(body), headers={"accept-encoding": accepted})
    assert answer.json()["outputs"][0]["data"] == [0.5] * (2 * rows)
    packed = answer.headers.get("content-encoding")
    assert packed == (None if rows == 1 else "deflate" if accepted == "deflate" else "gzip")
    plain = server.post("/v2/models/echo/infer", json.dumps(body), headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json() == answer.json()


def test_pipelined_answers_keep_their_order_however_they_are_packed(server: ScoringServer) -> None:
    """A large answer is packed on a thread; the small one behind it must wait."""
    parts = []
    for rows, accepts in ((3_000, "gzip"), (1, "identity"), (2_000, "deflate"), (2, "gzip")):
        text = json.dumps(
            {"id": str(rows), "inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": [0] * rows * 2}]}
        )
        head = f"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\naccept-encoding: {accepts}\r\ncontent-length: {len(text)}\r\n"
        parts.append((head + ("connection: close\r\n" if rows == 2 else "") + "\r\n" + text).encode())
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"".join(parts))
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    found = []
    while received:
        top, _, rest = received.partition(b"\r\n\r\n")
        fields: dict[bytes, bytes] = dict(line.split(b": ", 1) for line in top.split(b"\r\n")[1:])
        body, received = rest[: int(fields[b"content-length"])], rest[int(fields[b"content-length"]) :]
        unpack: Any = {b"gzip": gzip.decompress, b"deflate": zlib.decompress}.get(fields.get(b"content-encoding", b""), bytes)
        found.append(json.loads(unpack(body))["id"])
    assert found == ["3000", "1", "2000", "2"]


def test_a_slash_at_the_end_changes_nothing(server: ScoringServer) -> None:
    for path in (
        "/v2",
        "/v2/health/ready",
        "/v2/models/echo",
        "/v2/models/echo/versions/1",
        "/v2/models/echo/ready",
        "/v2/models/echo/config",
    ):
        assert server.get(f"{path}/").json() == server.get(path).json()
    for path in ("/v2/models/echo/infer/", "/v2/models/echo/versions/1/infer/"):
        for _ in range(2):
            assert server.post(path, json.dumps(GOOD)).json()["outputs"][0]["data"] == [1.5, -2.5]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/echo/infer", 405),
        ("POST", "/v2/models/echo", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/repository/index", 405),
        ("DELETE", "/v2/repository/models/echo/load", 405),
        ("GET", "/v2/models", 404),
        ("GET", "/v2x", 404),
        ("GET", "/v2/models/echo/versions", 404),
        ("GET", "/v2/models/echo/versions/1/load", 404),
        ("POST", "/v2/models/echo/versions/01/infer", 404),
        ("GET", "/v2/systemsharedmemory/status", 400),
        ("POST", "/v2/cudasharedmemory/region/r/register", 400),
        ("GET", "/v2/trace/setting", 404),
    ],
)
def test_paths_and_methods_that_are_not_there(server: ScoringServer, method: str, path: str, status: int) -> None:
    answer = server.client.request(method, server.url + path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert ("allow" in answer.headers) == (status == 405)


def test_a_raw_text_is_one_element(server: ScoringServer) -> None:
    answer = server.post("/v2/models/text/infer", "größe".encode(), headers={LENGTH: "0"})
    length = int(answer.headers[LENGTH])
    assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [1]
    assert answer.content[length + 4 :].decode() == "größe"


def test_nan_goes_through_binary_whole(server: ScoringServer) -> None:
    values = np.array([[np.nan, np.inf]], dtype="<f4").tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
    answer = server.post("/v2/models/echo/infer", head + values, headers={LENGTH: str(len(head))})
    assert answer.content[int(answer.headers[LENGTH]) :] == values
