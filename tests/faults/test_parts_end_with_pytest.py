"""A test run that is killed leaves no broker and no database server behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_for

TOP = Path(__file__).resolve().parents[2]
HANGING_TEST = """\
import pathlib, threading

def test_hangs(mosquitto, postgres_server, tmp_path):
    broker = mosquitto()
    pids = pathlib.Path({pids!r})
    pids.with_suffix(".half").write_text(f"{{broker.process.pid}} {{postgres_server.process.pid}}")
    pids.with_suffix(".half").rename(pids)
    threading.Event().wait(60)
"""


def _hear_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_real_parts_end_when_pytest_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hanging = tmp_path / "test_hanging.py"
    hanging.write_text(HANGING_TEST.format(pids=str(pids)))
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(TOP / "pyproject.toml"),
        "-p",
        "tests.conftest",
        str(hanging),
    ]
    with (tmp_path / "out").open("wb") as out:
        # A shell starts what it puts into the background deaf to SIGINT, and its children inherit that.
        run = subprocess.Popen(argv, cwd=TOP, stdout=out, stderr=out, start_new_session=True, preexec_fn=_hear_sigint)
    try:
        wait_for(lambda: pids.exists() or run.poll() is not None, timeout_s=60, what="the inner test to hold its parts")
        assert pids.exists(), (tmp_path / "out").read_text()
        parts = [int(pid) for pid in pids.read_text().split()]
        assert all(map(_alive, parts))
        run.send_signal(number)
        run.wait(30)
        wait_for(lambda: not any(map(_alive, parts)), timeout_s=15, what=f"the parts {parts} to end after {number.name}")
    finally:
        run.kill()
        run.wait(10)
