"""Logs: one line each, for people or for machines, that a stranger's text cannot forge."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from hedgerow.logs import QUIET_S, Seldom

_PROGRAM = """
import logging, sys
from hedgerow.logs import set_up_logs
set_up_logs(sys.argv[1], sys.argv[2])
log = logging.getLogger("hedgerow.test")
log.debug("too quiet")
log.info("scored %s rows", 3, extra={"endpoint": "shuttle", "path": __import__("pathlib").Path("/srv")})
log.warning("from outside: %s", sys.argv[3])
log.error("cut", extra={"traceback": "File score.py\\n" + sys.argv[3]})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def _said(level: str, log_format: str, outside: str = "plain") -> list[str]:
    argv = [sys.executable, "-c", _PROGRAM, level, log_format, outside]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "", "logs go to standard error"
    return done.stderr.splitlines()


def test_json_lines_are_whole_objects() -> None:
    entries = [json.loads(line) for line in _said("info", "json", "two\nlines")]
    assert [entry["level"] for entry in entries] == ["info", "warning", "error", "error"]
    assert entries[2]["traceback"] == "File score.py\ntwo\nlines"
    first = entries[0]
    assert (first["message"], first["logger"], first["endpoint"], first["path"]) == (
        "scored 3 rows",
        "hedgerow.test",
        "shuttle",
        "/srv",
    )
    assert isinstance(first["pid"], int)
    assert abs(datetime.fromisoformat(first["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert entries[1]["message"] == "from outside: two\nlines"
    assert "ZeroDivisionError" in entries[3]["traceback"]


def test_text_lines_are_for_people() -> None:
    lines = _said("info", "text")
    assert " I [" in lines[0]
    assert lines[0].endswith("hedgerow.test - scored 3 rows")
    assert " W [" in lines[1]
    assert any("ZeroDivisionError" in line for line in lines)
    assert "    File score.py" in lines, "indented under the line that it belongs to"


def test_level_is_taken_in_any_case() -> None:
    assert any("too quiet" in line for line in _said("DEBUG", "text"))
    assert not any("scored" in line for line in _said("warning", "text"))


@pytest.mark.parametrize("nasty", ["x\n2026-01-01 00:00:00.000 I [1] hedgerow - forged", "a\rb", "\x1b[2Jcleared", "\x9b2J"])
def test_a_strangers_text_stays_on_its_line(nasty: str) -> None:
    lines = _said("info", "text", nasty)
    told = next(line for line in lines if "from outside" in line)
    assert repr(nasty)[1:-1].replace("\\'", "'") in told
    assert not any(line.startswith("2026-01-01") for line in lines)


def test_what_strangers_can_cause_is_told_at_once_and_then_seldom() -> None:
    seldom = Seldom()
    assert [seldom.due(5.0), seldom.due(5.0), seldom.due(5.0 + QUIET_S - 0.01)] == [1, 0, 0]
    assert seldom.due(5.0 + QUIET_S) == 3, "all since the last line"
    assert seldom.due(5.0 + 3 * QUIET_S) == 1


def test_no_thread_is_told_of_twice() -> None:
    seldom = Seldom()
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(seldom.due, [float(number) for number in range(5000)]))
    assert sum(told) + seldom.due(1e9) == 5001
