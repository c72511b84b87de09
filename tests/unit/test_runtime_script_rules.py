"""What is known of a scoring script before it runs, and what of its failure is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.errors import HedgerowError
from runtime.errors import ReservedModule, ScriptUnusable
from runtime.scripts.calls import PoolLimits
from runtime.scripts.script import check_source, user_traceback


def check(folder: Path, text: str) -> None:
    (folder / "score.py").write_text(text, encoding="utf-8")
    check_source(folder / "score.py", folder)


def test_nothing_of_it_runs_while_it_is_checked(tmp_path: Path) -> None:
    check(tmp_path, "raise SystemExit('never run')\n@rawhttp\ndef run(x): ...\n")


@pytest.mark.parametrize("name", ["runtime.py", "hedgerow.py", "runtime/x.py", "hedgerow/__init__.py"])
def test_our_two_names_are_reserved(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ReservedModule) as refused:
        check(tmp_path, "def run(x): ...")
    assert "Rename it" in refused.value.advice


@pytest.mark.parametrize("name", ["registry.py", "tests/runtime.py", "runtimes.py"])
def test_other_names_are_free(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    check(tmp_path, "def run(x): ...")


@pytest.mark.parametrize("text", ["def run(:", "\x00", "return 1 +"])
def test_what_is_no_python_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(ScriptUnusable, match=r"score\.py cannot be used: it is not Python"):
        check(tmp_path, text)


def test_a_traceback_shows_the_users_frames_and_causes_only() -> None:
    try:
        try:
            check_source(Path("/nowhere/score.py"), Path("/nowhere"))
        except HedgerowError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError as problem:
        text = user_traceback(problem)
    assert "RuntimeError: outer" in text
    assert "test_runtime_script_rules.py" in text
    assert "ScriptUnusable" in text
    assert "runtime/script.py" not in text


@pytest.mark.parametrize(("standbys", "spare_cores", "early"), [(1, 1, 1), (1, 0, 0), (1, -3, 0), (0, 8, 0), (4, 2, 2)])
def test_standbys_are_imported_beside_the_workers_only_on_cores_of_their_own(standbys: int, spare_cores: int, early: int) -> None:
    assert PoolLimits(1, standbys, queue_wait_s=1, timeout_s=1, spare_cores=spare_cores).early_standbys == early
