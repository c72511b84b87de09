"""Bodies of megabytes: the same answers as small ones get, and nothing of them stays."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import scoring_models as models
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for

MIB = 1024 * 1024
ROWS = np.round(np.random.default_rng(3).random((700_000, 2)), 4)


def texts(values: Any) -> dict[str, bytes]:
    """One request in the words of each contract, by path."""
    flat = {"name": "x", "datatype": "FP32", "shape": [len(values), 2], "data": values}
    return {
        "/score": json.dumps({"data": values}).encode(),
        "/v2/models/echo/infer": json.dumps({"inputs": [flat]}, separators=(",", ":")).encode(),
    }


def values_in(answer: bytes) -> Any:
    document = json.loads(answer)
    return document["outputs"][0]["data"] if isinstance(document, dict) else document


def test_what_is_large_comes_back_whole_and_is_told_of(tmp_path: Path) -> None:
    bodies = texts(ROWS.tolist())
    sizes = {path: len(body) for path, body in bodies.items()}
    # More than any record of collected data: such bodies are not kept while they are scored.
    assert min(sizes.values()) > 8 * MIB
    with ScoringServer(tmp_path, "--model", models.echo(), "--name", "echo", "--access-log", "json") as server:
        for path, body in bodies.items():
            answer = server.post(path, body)
            assert answer.status_code == 200, answer.text[:300]
            assert np.array_equal(np.ravel(values_in(answer.content)).astype(np.float32), np.ravel(ROWS).astype(np.float32))
        wait_for(lambda: server.process.log_text().count('"bytes_in"') >= 2, what="two lines of the access log")
        lines = [json.loads(line) for line in server.process.log_text().splitlines() if '"bytes_in"' in line]
    assert {line["path"]: line["bytes_in"] for line in lines} == sizes


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [([0.5], "different lengths"), (["0.5", 1.0], "text where numbers"), ([None, 1.0], ""), ([[0.5], 1.0], "different lengths")],
)
def test_what_is_wrong_far_inside_is_told_as_of_small_bodies(tmp_path: Path, spoilt: list[object], says: str) -> None:
    with ScoringServer(tmp_path, "--model", models.echo(), "--name", "echo") as server:
        for count in (3, 60_000):
            rows: list[list[object]] = ROWS[:count].tolist()
            rows[count // 2] = spoilt
            for path, body in texts(rows).items():
                answer = server.post(path, body)
                if says:
                    assert (answer.status_code, says in answer.text) == (400, True), answer.text[:300]
                else:
                    found = np.ravel(values_in(answer.content))[count // 2 * 2]
                    assert found is None or math.isnan(found)


def test_bodies_that_come_packed_leave_no_room_that_is_not_there(tmp_path: Path) -> None:
    body = texts(ROWS[:200_000].tolist())["/score"]
    packed = gzip.compress(body, 1)
    room = 2 * MIB
    assert len(packed) < room < len(body)
    with ScoringServer(tmp_path, "--model", models.echo(), "--name", "echo", "--max-buffered-bytes", room) as server:
        for _ in range(3):
            assert server.post("/score", packed, headers={"content-encoding": "gzip"}).status_code == 200
        # As much as before they came, no more: plain, it does not fit.
        assert server.post("/score", body).status_code == 503
