"""Triton's extensions, where a server's metadata names them."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def statistics(target: Any) -> Any:
    if not target.offers("statistics"):
        pytest.skip("the server does not offer statistics")

    def read(path: str = "") -> dict[str, Any]:
        found: list[dict[str, Any]] = target.get(path or f"/v2/models/{target.model}/stats").json()["model_stats"]
        return next(one for one in found if one["name"] == target.model)

    return read


def test_statistics_count_what_was_scored(target: Any, statistics: Any) -> None:
    before = statistics()
    assert target.infer({"inputs": target.inputs()}).status_code == 200
    after = statistics()
    assert after["inference_count"] > before["inference_count"]
    assert after["execution_count"] > before["execution_count"]
    assert after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"] + 1
    assert after["last_inference"] >= before["last_inference"]
    for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        assert set(after["inference_stats"][name]) >= {"count", "ns"}


def test_statistics_of_every_model(target: Any, statistics: Any) -> None:
    assert statistics("/v2/models/stats")["version"] == statistics()["version"]


def test_the_repository_index_names_the_model(target: Any) -> None:
    if not target.offers("model_repository"):
        pytest.skip("the server does not offer model_repository")
    for body in ({}, {"ready": True}):
        entries = target.client.post("/v2/repository/index", json=body).json()
        assert [entry["state"] for entry in entries if entry["name"] == target.model] == ["READY"]
    refused = target.client.post("/v2/repository/models/there-is-no-such-model/load")
    assert 400 <= refused.status_code < 600
    assert refused.json()["error"]
    assert target.infer({"inputs": target.inputs()}).status_code == 200
