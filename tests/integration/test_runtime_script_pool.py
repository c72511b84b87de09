"""The pool of script processes on a loop that stands still at the worst moment, as on a machine that has too much to do."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import uvloop

from runtime.admission import Admission
from runtime.scripts.link import host_command
from runtime.scripts.place import ScriptPlace
from runtime.scripts.pool import PoolLimits, ScriptPool
from tests.waiting import wait_for


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def has_ended(pid: int) -> bool:
    """Without reaping it, which is for the pool."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_last_words_are_heard_on_a_loop_that_stood_still(tmp_path: Path, turns: int) -> None:
    (tmp_path / "score.py").write_text("def run(:")
    place = ScriptPlace(tmp_path / "score.py", tmp_path, (tmp_path,))

    async def boot() -> list[str]:
        told: list[str] = []
        heard = asyncio.Event()

        def failed(sentence: str) -> None:
            told.append(sentence)
            heard.set()

        limits = PoolLimits(workers=1, standbys=0, queue_wait_s=1.0, timeout_s=1.0)
        admission = Admission(1, 1, lambda: None)
        pool = ScriptPool(host_command(place, 1), limits, admission, boot_failed=failed, changed=lambda: None)
        others = children()
        pool.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        (pid,) = children() - others
        wait_for(lambda: has_ended(pid), timeout_s=30, what="the script process to end while the loop stands still")
        await asyncio.wait_for(heard.wait(), 30)
        await pool.close()
        return told

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(boot())
    assert "it is not Python" in told[0], told
