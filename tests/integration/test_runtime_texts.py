"""Texts that are no UTF-8 and types that no request can carry: one clear sentence, whichever way they come."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from runtime.models.errors import ModelInputUnsupported, ModelOutputUnsupported
from runtime.models.onnx_model import OnnxModel
from tests import scoring_models as models
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringServer]:
    with ScoringServer(tmp_path_factory.mktemp("texts"), "--model", models.echo_text()) as running:
        yield running


INFER = "/v2/models/echo-text/infer"


def infer_body(text: bytes) -> bytes:
    return b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["' + text + b'"]}]}'


def in_binary(text: bytes) -> tuple[bytes, dict[str, str]]:
    data = struct.pack("<I", len(text)) + text
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + data, {"inference-header-content-length": str(len(head))}


@pytest.mark.parametrize("size", [1, 50_000])
@pytest.mark.parametrize("text", [b"\xff", b"\\ud800", b"\xed\xa0\x80"])
def test_no_utf8_in_json(server: ScoringServer, text: bytes, size: int) -> None:
    for path, body in ((INFER, infer_body(text * size)), ("/score", b'["' + text * size + b'"]')):
        refused = server.post(path, body)
        assert refused.status_code == 400, (path, refused.text[:300])
        assert "failed" not in refused.text
        assert server.post(path, body.replace(text, "é".encode())).status_code == 200


@pytest.mark.parametrize("size", [1, 50_000])
def test_no_utf8_in_binary(server: ScoringServer, size: int) -> None:
    body, headers = in_binary(b"\xff" * size)
    refused = server.post(INFER, body, headers=headers)
    assert (refused.status_code, "UTF-8" in refused.json()["error"]) == (400, True)
    refused = server.post(INFER, b"\xff" * size, headers={"inference-header-content-length": "0"})
    assert (refused.status_code, "UTF-8" in refused.json()["error"]) == (400, True)
    body, headers = in_binary("é".encode() * size)
    assert server.post(INFER, body, headers=headers).json()["outputs"][0]["data"] == ["é" * size]


def test_no_utf8_in_a_load_request(server: ScoringServer) -> None:
    refused = server.post("/v2/repository/models/echo-text/load", b'{"parameters": {"config": "\xff"}}')
    assert (refused.status_code, "utf-8" in refused.json()["error"]) == (400, True)


def cast(given: int, made: int) -> Path:
    node = helper.make_node("Cast", ["x"], ["y"], to=made)
    return models.build(f"cast-{given}-{made}", [node], [models.value("x", given, ["N"])], [models.value("y", made, ["N"])])


def test_a_model_that_takes_or_gives_bfloat16_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    takes, gives = cast(TensorProto.BFLOAT16, TensorProto.FLOAT), cast(TensorProto.FLOAT, TensorProto.BFLOAT16)
    with pytest.raises(ModelInputUnsupported, match=r"input 'x' of type tensor\(bfloat16\)"):
        OnnxModel("m", takes)
    with pytest.raises(ModelOutputUnsupported, match=r"output 'y' of type tensor\(bfloat16\)"):
        OnnxModel("m", gives)
    with ScoringServer(tmp_path, "--model", gives, wait=False) as server:
        wait_for(lambda: server.exit_code is not None, what="the end")
        assert server.exit_code == 3
        assert "Give the model a Cast to float" in server.process.log_text()
