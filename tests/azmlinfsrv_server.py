"""Our ``azmlinfsrv`` as a real process on a port of its own, for tests."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.fixtures.real_process import RealProcess
from tests.scoring_server import ScoringServer


class Azmlinfsrv(ScoringServer):
    """``azmlinfsrv ARGUMENTS`` in ``folder``; its --port is for people, tests take a free one by the environment."""

    def __init__(self, folder: Path, *arguments: object, env: Mapping[str, str] | None = None, wait: bool = True) -> None:
        super().__init__(folder, env=env, wait=wait)
        argv = [sys.executable, "-P", "-m", "runtime.azmlinfsrv", *map(str, arguments)]
        mine = {"HOME": str(folder), "HEDGEROW_PORT": "0", "HEDGEROW_READY_FILE": str(self.ready_file)}
        self.process = RealProcess(argv, log=folder / "server.log", env=mine | dict(env or {}), cwd=folder)
