"""The README's five-minute tour, command by command, with the output that it promises."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.sdk.connect import connect
from tests.fixtures.control_plane import processes_of
from tests.fixtures.parts import search_path
from tests.fixtures.real_process import RealProcess
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
STAYS_IN_FRONT = ("hedgerow up", "hedgerow agent run")


def tour() -> list[tuple[str, list[str]]]:
    """(command, promised output lines) of every console block in the tour."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## A five-minute tour")[1].split("\n## ")[0]
    steps: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line)
    return steps


def as_pattern(promised: str) -> str:
    """Numbers, digests and ids differ from run to run; … stands for anything."""
    pattern = re.escape(promised.rstrip()).replace("RUN_ID", r"\S+")
    pattern = re.sub(r"(?<![\w])[0-9a-f]{12}(?![\w])", "[0-9a-f]{12}", pattern)
    pattern = re.sub(r"\d+(\\\.\d+)?", r"[\\d.]+", pattern.replace("[0-9a-f]{12}", "HEX"))
    return pattern.replace("HEX", "[0-9a-f]{12}").replace("…", ".*")


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    yield tmp_path
    assert wait_for(lambda: not processes_of(tmp_path), timeout_s=30, what="the end of everything the tour started")


def test_the_tour(there: Path) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{search_path()}",
        "HOME": str(there),
        "HEDGEROW_PORT": "0",
        "HEDGEROW_BROKER_PORT": "0",
        "HEDGEROW_BALANCER_PORT": "0",
    }
    background: list[RealProcess] = []
    run_id = ""
    try:
        for command, promised in tour():
            words = [run_id if word == "RUN_ID" else word for word in shlex.split(command)]
            if command.startswith(STAYS_IN_FRONT):
                background.append(start(words, there, environment, promised))
                continue
            answer = subprocess.run(words, cwd=there, env=environment, capture_output=True, text=True, timeout=120)
            assert answer.returncode == 0, f"{command}\n{answer.stdout}{answer.stderr}"
            assert re.search(r"\n?.*".join(map(as_pattern, promised)), answer.stdout), f"{command} printed\n{answer.stdout}"
            if found := re.match(r"Run (\S+) succeeded", answer.stdout):
                run_id = found[1]
    finally:
        stop(there, background)


def start(words: list[str], there: Path, environment: dict[str, str], promised: list[str]) -> RealProcess:
    """A command that stays in front; it has started when its promise is printed, or the device reports a running module."""
    extra = ["--stop-modules-on-exit"] if "agent" in words else []
    process = RealProcess([*words, *extra], log=there / f"{words[1]}.log", env=environment, cwd=there).start()
    if "agent" in words:
        process.wait_until(lambda: module_runs(there), timeout_s=30, what="the module running on the device")
    else:
        pattern = r"\s*\n\s*".join(as_pattern(line.strip()) for line in promised)
        process.wait_until(lambda: bool(re.search(pattern, process.log_text())), what="what the README promises")
    return process


def module_runs(there: Path) -> bool:
    with connect(there / "hedgerow-workspace", start=False) as client:
        reported = client.devices.get("press-1").reported
    return reported is not None and reported.modules.get("scorer") is not None and reported.modules["scorer"].state == "running"


def stop(there: Path, background: list[RealProcess]) -> None:
    for process in reversed(background):
        process.stop(grace_s=30)
    assert os.path.lexists(there / "hedgerow-workspace")
