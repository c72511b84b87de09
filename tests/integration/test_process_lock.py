"""Locks between real processes: who holds, who is refused, what a kill leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hedgerow.process import LockHeld
from hedgerow.process.lock import hold_lock, lock_holder
from tests.process_folders import REPOSITORY
from tests.waiting import wait_for

HOLDER = """
import sys
from pathlib import Path
from hedgerow.process import LockHeld
from hedgerow.process.lock import hold_lock
try:
    with hold_lock(Path(sys.argv[1]), "The hub"):
        print("held", flush=True)
        sys.stdin.read()
except LockHeld as refused:
    print("refused", refused.fields["pid"], flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(path)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=20)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_second_holder_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "hub.lock"
    assert lock_holder(path) is None
    first = holder(path)
    try:
        assert said(first) == "held"
        assert lock_holder(path) == first.pid
        with pytest.raises(LockHeld) as refused:
            hold_lock(path, "The hub")
        assert refused.value.fields["pid"] == first.pid
        assert (refused.value.fields["path"], refused.value.fields["purpose"]) == (path, "The hub")
        assert str(refused.value) == f"The hub is already running as pid {first.pid} (lock {path})"
    finally:
        end(first)
    assert lock_holder(path) is None
    assert path.read_bytes() == b""
    with hold_lock(path, "The hub") as held:
        assert lock_holder(path) == os.getpid()
        held.release()
        held.release()


def test_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hub.lock"
    first = holder(path)
    assert said(first) == "held"
    first.kill()
    end(first)
    assert path.read_text().split()[0] == str(first.pid), "it had no chance to clean up"
    assert lock_holder(path) is None
    with hold_lock(path, "The hub"):
        assert lock_holder(path) == os.getpid()


def test_of_many_that_race_one_holds_and_looking_disturbs_nobody(tmp_path: Path) -> None:
    path = tmp_path / "hub.lock"
    racers = [holder(path) for _ in range(5)]
    try:
        wait_for(lambda: lock_holder(path), what="a holder")
        answers = {racer.pid: said(racer) for racer in racers}
        winners = [pid for pid, answer in answers.items() if answer == "held"]
        assert len(winners) == 1
        assert {answer for answer in answers.values() if answer != "held"} == {f"refused {winners[0]}"}
    finally:
        for racer in racers:
            end(racer)


def test_lock_in_a_file_that_was_removed_meanwhile_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "hub.lock"
    with hold_lock(path, "The hub"):
        path.unlink()
        with hold_lock(path, "The hub"):
            assert lock_holder(path) == os.getpid()


def test_holder_that_left_no_pid_is_still_respected(tmp_path: Path) -> None:
    path = tmp_path / "hub.lock"
    with hold_lock(path, "The hub"):
        path.write_bytes(b"")
        with pytest.raises(LockHeld, match="in a process that left no pid") as refused:
            hold_lock(path, "The hub")
        assert refused.value.fields["pid"] is None
        assert "None" not in refused.value.sentence()
