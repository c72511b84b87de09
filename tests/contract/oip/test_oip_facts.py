"""What a server tells of itself and of a model."""

from __future__ import annotations

from typing import Any

import pytest

DATATYPES = {
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "BF16")
}


@pytest.mark.parametrize("word", ["live", "ready"])
def test_health(target: Any, word: str) -> None:
    assert target.get(f"/v2/health/{word}").status_code == 200


def test_server_metadata(target: Any) -> None:
    facts = target.get("/v2").json()
    assert isinstance(facts["name"], str)
    assert isinstance(facts["version"], str)
    assert all(isinstance(extension, str) for extension in facts["extensions"])


def test_model_metadata(target: Any) -> None:
    facts = target.metadata
    assert facts["name"] == target.model
    assert isinstance(facts["platform"], str)
    assert facts["inputs"]
    assert facts["outputs"]
    for spec in facts["inputs"] + facts["outputs"]:
        assert isinstance(spec["name"], str)
        assert spec["datatype"] in DATATYPES
        assert all(int(length) >= -1 for length in spec["shape"])


def test_each_version_that_is_named_is_there(target: Any) -> None:
    for version in target.metadata.get("versions", []):
        assert target.get(f"/v2/models/{target.model}/versions/{version}").json()["name"] == target.model
        assert target.get(f"/v2/models/{target.model}/versions/{version}/ready").status_code == 200
        assert target.infer({"inputs": target.inputs()}, version).status_code == 200


def test_model_ready(target: Any) -> None:
    assert target.get(f"/v2/models/{target.model}/ready").status_code == 200


@pytest.mark.parametrize("ending", ["", "/ready", "/versions/1", "/versions/1/ready"])
def test_a_model_that_is_not_there(target: Any, ending: str) -> None:
    answer = target.get(f"/v2/models/there-is-no-such-model{ending}")
    assert 400 <= answer.status_code < 500
    if ending != "/ready":
        assert isinstance(answer.json()["error"], str)


def test_infer_of_a_model_that_is_not_there(target: Any) -> None:
    answer = target.client.post("/v2/models/there-is-no-such-model/infer", json={"inputs": target.inputs()})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]
