"""A script process that wants more memory than it may have fails alone."""

from __future__ import annotations

from pathlib import Path

from tests.scoring_server import ScoringServer, script

GREEDY = """
    import json

    def init():
        pass

    def run(data):
        return len(bytearray(json.loads(data)["mb"] * 2**20))
"""


def test_what_is_beyond_the_limit_cannot_be_allocated_and_the_next_request_is_answered(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--script", script(tmp_path, GREEDY), "--script-memory-mb", 300, "--standbys", 0) as server:
        assert server.score({"mb": 20}).json() == 20 * 2**20
        assert server.score({"mb": 1000}).status_code == 500
        assert "MemoryError" in server.process.log_text()
        assert server.score({"mb": 20}).json() == 20 * 2**20


def test_without_a_limit_there_is_none(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--script", script(tmp_path, GREEDY), "--standbys", 0) as server:
        assert server.score({"mb": 400}).json() == 400 * 2**20
