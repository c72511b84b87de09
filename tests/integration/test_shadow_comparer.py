"""The comparer between two real scoring servers: what it compares, what it counts, and what it takes no notice of."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import msgspec
import pytest

from hedgerow.contracts.shadow import COUNTS_FILE, DIFFERENCES_FILE, DIFFERENCES_MAX, ShadowCounts, ShadowDifference
from tests import scoring_models
from tests.fixtures.real_process import RealProcess
from tests.scoring_server import ScoringServer, script
from tests.waiting import wait_for

MULTIPLY = """
    import json, os

    def init():
        pass

    def run(raw_data):
        values = json.loads(raw_data)["data"]
        if {deadly} in values:
            os._exit(1)
        if {failing} in values:
            raise ValueError("it cannot")
        return {{"result": [{factor} * value for value in values]}}
"""


class Comparing:
    """``python -m runtime.shadow`` beside a module's server; a context manager. Its files stay for the next one."""

    def __init__(self, folder: Path, tap: Path, ready_file: Path, *flags: str, pair: str = "a-b") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        argv = [sys.executable, "-P", "-m", "runtime.shadow", "--tap", str(tap), "--shadow", str(ready_file), "--pair", pair]
        self.process = RealProcess([*argv, *flags], log=folder.with_suffix(".log"), env={}, cwd=folder)

    def __enter__(self) -> Comparing:
        self.process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.stop()

    def counts(self) -> ShadowCounts | None:
        try:
            return msgspec.json.decode((self.folder / COUNTS_FILE).read_bytes(), type=ShadowCounts)
        except FileNotFoundError:
            return None

    def differences(self) -> list[ShadowDifference]:
        lines = (self.folder / DIFFERENCES_FILE).read_bytes().splitlines()
        return [msgspec.json.decode(line, type=ShadowDifference) for line in lines]

    def until(self, what: str, ask: Callable[[], object], look: Callable[[ShadowCounts], bool]) -> ShadowCounts:
        """Ask again and again until the counts are so."""

        def found() -> ShadowCounts | None:
            ask()
            counts = self.counts()
            return counts if counts is not None and look(counts) else None

        counts = wait_for(found, timeout_s=60, what=what)
        assert counts is not None
        return counts


def multiplying(folder: Path, factor: float, *, deadly: int = -1, failing: int = -2) -> Path:
    return script(folder, MULTIPLY.format(factor=factor, deadly=deadly, failing=failing))


def ask(server: ScoringServer, *values: float, **headers: str) -> None:
    assert server.score({"data": list(values)}, headers=headers).status_code == 200


@pytest.fixture
def module(tmp_path: Path) -> Iterator[ScoringServer]:
    """A script that doubles."""
    source = multiplying(tmp_path / "double", 2.0)
    with ScoringServer(tmp_path / "module", "--script", source, "--tap-dir", tmp_path / "tap") as made:
        yield made


def test_a_script_and_its_shadow(module: ScoringServer, tmp_path: Path) -> None:
    """Equal, within the tolerance, different, failed, dead over a request: each is counted for what it is."""
    source = multiplying(tmp_path / "nearly", 2.0002, deadly=13, failing=7)
    with (
        ScoringServer(tmp_path / "shadow", "--script", source) as shadow,
        Comparing(tmp_path / "work", tmp_path / "tap", shadow.ready_file) as comparing,
    ):
        told = comparing.until("a comparison", lambda: ask(module, 1.0), lambda counts: counts.compared > 0)
        assert (told.different, told.failed) == (0, 0)
        assert told.worst_difference == pytest.approx(0.0002)
        assert told.problem == ""
        told = comparing.until("a failure", lambda: ask(module, 7.0), lambda counts: counts.failed > 0)
        assert told.different == 0
        # Its process dies; the server answers with an error, and starts another.
        before = told.failed
        told = comparing.until("another", lambda: ask(module, 13.0), lambda counts: counts.failed > before)
        assert told.different == 0
        found = comparing.differences()
    assert "status 500" in found[0].detail
    assert json.loads(found[0].body) == {"data": [7.0]}
    assert json.loads(found[0].answer) == {"result": [14.0]}
    assert stat.S_IMODE((tmp_path / "work" / DIFFERENCES_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "work" / COUNTS_FILE).stat().st_mode) == 0o600


def test_packed_answers_and_differences_are_kept_up_to_a_number(module: ScoringServer, tmp_path: Path) -> None:
    with (
        ScoringServer(tmp_path / "shadow", "--script", multiplying(tmp_path / "triple", 3.0)) as shadow,
        Comparing(tmp_path / "work", tmp_path / "tap", shadow.ready_file) as comparing,
    ):
        many = [1.0] * 2000  # large enough to be packed for a caller who takes gzip
        told = comparing.until(
            "differences",
            lambda: ask(module, *many, **{"accept-encoding": "gzip"}),
            lambda counts: counts.different > DIFFERENCES_MAX,
        )
        assert told.different == told.compared
        assert told.worst_difference == 1.0
        found = comparing.differences()
    assert len(found) == DIFFERENCES_MAX
    assert found[0].detail == "result[0]: 3.0, the module's is 2.0"


def test_counts_go_on_after_a_kill_and_begin_anew_for_another_pair(module: ScoringServer, tmp_path: Path) -> None:
    with ScoringServer(tmp_path / "shadow", "--script", multiplying(tmp_path / "triple", 3.0)) as shadow:
        there = (tmp_path / "work", tmp_path / "tap", shadow.ready_file)
        with Comparing(*there) as comparing:
            told = comparing.until("a comparison", lambda: ask(module, 1.0), lambda counts: counts.compared > 0)
            comparing.process.kill()
        with Comparing(*there) as comparing:
            more = comparing.until("more", lambda: ask(module, 1.0), lambda counts: counts.compared > told.compared)
            assert more.different == more.compared
        with Comparing(*there, pair="a-c") as comparing:
            anew = comparing.until("another pair", lambda: ask(module, 1.0), lambda counts: counts.pair == "a-c")
            # Of those before nothing is left; on a slow machine more were asked than are kept.
            assert min(anew.compared, DIFFERENCES_MAX) <= len(comparing.differences())
        kept = comparing.counts()
        assert kept is not None
        assert kept.compared >= anew.compared


def test_a_shadow_that_is_away_costs_the_comparison_only(module: ScoringServer, tmp_path: Path) -> None:
    with Comparing(tmp_path / "work", tmp_path / "tap", tmp_path / "nobody.json") as comparing:
        told = comparing.until("what was dropped", lambda: ask(module, 1.0), lambda counts: counts.dropped > 2)
    assert (told.compared, told.failed) == (0, 0)
    assert told.problem == "it is not ready"


def test_a_module_without_a_tap_is_told(tmp_path: Path) -> None:
    with Comparing(tmp_path / "work", tmp_path / "tap", tmp_path / "nobody.json") as comparing:
        told = comparing.until("the problem", lambda: None, lambda counts: counts.problem != "")
    assert told.problem.startswith("the module has no tap yet")


def test_models_of_other_names_in_binary_behind_a_key(tmp_path: Path) -> None:
    """The shadow's only model is meant, whatever it is called; a caller's key is good for both."""
    iris = scoring_models.iris()
    keys = {"HEDGEROW_PRIMARY_KEY": "k" * 20, "HEDGEROW_AUTH_HEALTH": "true"}
    rows, _ = scoring_models.iris_rows()
    tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": rows[0].tolist()}
    body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    headers = {"authorization": "Bearer " + "k" * 20}
    with (
        ScoringServer(tmp_path / "old", "--model", iris, "--name", "old", "--tap-dir", tmp_path / "tap", env=keys) as old,
        ScoringServer(tmp_path / "new", "--model", iris, "--name", "new", env=keys) as new,
        Comparing(tmp_path / "work", tmp_path / "tap", new.ready_file) as comparing,
    ):

        def infer() -> None:
            answered = old.post("/v2/models/old/infer", body, headers=headers)
            assert answered.status_code == 200
            assert "inference-header-content-length" in answered.headers

        told = comparing.until("a comparison", infer, lambda counts: counts.compared > 0)
    assert (told.different, told.failed, told.worst_difference) == (0, 0, 0.0)
