"""The tap of a scoring server: whole copies for whoever listens, nothing for nobody, and no caller waits for a slow listener."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import scoring_models
from tests.scoring_server import ScoringServer, script
from tests.tap_listener import TapListener, taps
from tests.waiting import wait_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tap"


@pytest.fixture
def iris(tmp_path: Path, folder: Path) -> Iterator[ScoringServer]:
    with ScoringServer(tmp_path / "iris", "--model", scoring_models.iris(), "--name", "iris", "--tap-dir", folder) as made:
        yield made


def iris_request() -> dict[str, object]:
    rows, _ = scoring_models.iris_rows()
    return {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": rows[0].tolist()}]}


def noticed(server: ScoringServer, listener: TapListener) -> None:
    """Until the listener gets requests: its hello takes a moment."""
    wait_for(lambda: server.infer("iris", iris_request()).status_code == 200 and listener.anything, what="the first copy")
    listener.read()


def test_only_this_user_may_listen(iris: ScoringServer, folder: Path) -> None:
    with TapListener(folder):  # its rights are there before anybody can come in
        found = taps(folder)
    assert [path.stem for path in found] == [str(pid) for pid in iris.workers()]
    assert stat.S_IMODE(found[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_copies_are_whole_and_of_what_was_scored_only(iris: ScoringServer, folder: Path) -> None:
    with TapListener(folder) as listener:
        noticed(iris, listener)
        iris.get("/v2/models/iris")
        iris.post("/v2/models/iris/infer", b"no json")
        iris.post("/score", b"no json")
        body = json.dumps({"id": "mine", **iris_request()}).encode()
        headers = {"authorization": "Bearer x", "accept-encoding": "gzip", "cookie": "mine", "content-type": "application/json"}
        answered = iris.post("/v2/models/iris/infer", body, headers=headers)
        head, asked, answer = listener.read()
        while asked != body:  # what was asked until the listener was noticed
            assert asked != b"no json"
            head, asked, answer = listener.read()
    assert (head.method, head.path, head.route, head.status) == ("POST", "/v2/models/iris/infer", "infer", 200)
    assert asked == body
    assert json.loads(answer) == answered.json()
    assert head.headers["authorization"] == "Bearer x"
    assert "cookie" not in head.headers
    assert head.answer_headers["content-type"] == "application/json"
    assert 0 < head.seconds < 60
    assert head.dropped == 0


def test_one_listener_after_another(iris: ScoringServer, folder: Path) -> None:
    for _ in range(2):
        with TapListener(folder) as listener:
            noticed(iris, listener)


def test_whoever_says_nothing_sensible_is_cut_off_and_the_next_is_served(iris: ScoringServer, folder: Path) -> None:
    with TapListener(folder, 7.0) as listener, pytest.raises(AssertionError, match="closed"):
        listener.read()
    with TapListener(folder) as listener:
        noticed(iris, listener)


def test_a_slow_listener_loses_requests_and_callers_wait_for_nothing(tmp_path: Path, folder: Path) -> None:
    source = script(
        tmp_path,
        """
        def init():
            pass

        def run(raw_data):
            return raw_data
        """,
    )
    body = json.dumps("x" * 1_000_000)
    with ScoringServer(tmp_path / "echo", "--script", source, "--tap-dir", folder) as server, TapListener(folder) as listener:
        wait_for(lambda: server.score("hello").status_code == 200 and listener.anything, what="the first copy")
        # More than sockets and the queue hold, while nobody reads.
        for _ in range(30):
            assert server.post("/score", body).status_code == 200
        dropped = 0
        answered = 0
        while not dropped:
            if not listener.anything:
                assert server.score("hello").status_code == 200
            head, _, _ = listener.read()
            dropped, answered = head.dropped, answered + 1
    assert 0 < dropped < 30
    assert answered < 60


def test_requests_that_are_too_large_are_counted_not_told(tmp_path: Path, folder: Path) -> None:
    source = script(tmp_path, "def init():\n    pass\n\ndef run(raw_data):\n    return len(raw_data)\n")
    with ScoringServer(tmp_path / "count", "--script", source, "--tap-dir", folder) as server, TapListener(folder) as listener:
        wait_for(lambda: server.score("hello").status_code == 200 and listener.anything, what="the first copy")
        assert server.post("/score", json.dumps("x" * 5_000_000)).status_code == 200
        assert server.score("good-bye").status_code == 200
        while listener.read()[1] != b'"good-bye"':
            pass
        assert server.score("again").status_code == 200
        assert listener.read()[0].dropped == 1


def test_sockets_of_workers_that_were_killed_are_cleared_away(tmp_path: Path, folder: Path) -> None:
    folder.mkdir()
    gone, alive = folder / "4194305.sock", folder / f"{os.getpid()}.sock"
    gone.touch()
    alive.touch()
    with ScoringServer(tmp_path / "iris", "--model", scoring_models.iris(), "--name", "iris", "--tap-dir", folder) as server:
        own = folder / f"{server.workers()[0]}.sock"
        wait_for(own.exists, what="the tap")
        assert not gone.exists()
        assert alive.exists()
    assert not own.exists()


def test_a_folder_that_cannot_be_used_costs_the_tap_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with ScoringServer(
        tmp_path / "iris", "--model", scoring_models.iris(), "--name", "iris", "--tap-dir", tmp_path / "file" / "tap"
    ) as server:
        assert server.infer("iris", iris_request()).status_code == 200
        server.wait_for_log("no tap at")
