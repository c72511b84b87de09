"""`python -m packager VERB` as the controller runs it: a process of its own, a request file in, JSON lines out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from hedgerow.contracts.build import ProgressLine
from hedgerow.contracts.document import Document, convert, encode
from hedgerow.contracts.work import Problem

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class PackagerRun:
    """What one `python -m packager VERB` did."""

    exit_code: int
    lines: list[ProgressLine]
    stderr: str

    def result_as(self, kind: type[D]) -> D:
        raw = self.lines[-1].result
        assert raw is not None, f"no result: {self.lines[-1]}\n{self.stderr}"
        return convert(raw, kind)

    @property
    def problem_code(self) -> str:
        return self._problem.code

    @property
    def problem_text(self) -> str:
        return f"{self._problem.message}. {self._problem.remedy}"

    @property
    def _problem(self) -> Problem:
        problem = self.lines[-1].problem
        assert problem is not None, f"no problem: {self.lines[-1]}"
        return problem


def own_environment() -> dict[str, str]:
    """What a packager needs of ours to find its programs."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def write_order(verb: str, request: Document | bytes, folder: Path) -> list[str]:
    """``request`` as a file in ``folder``, and the command that does it."""
    folder.mkdir(parents=True, exist_ok=True)
    order = folder / "request.json"
    order.write_bytes(request if isinstance(request, bytes) else encode(request))
    return [sys.executable, "-P", "-m", "packager", verb, str(order)]


def run_verb(
    verb: str,
    request: Document | bytes,
    folder: Path,
    environment: Mapping[str, str],
    *,
    umask: int = 0o022,
    timeout_s: float = 170,
) -> PackagerRun:
    """One piece of work, with exactly this environment, from beginning to end."""
    argv = write_order(verb, request, folder)
    done = subprocess.run(argv, capture_output=True, cwd=folder, env=environment, umask=umask, timeout=timeout_s, check=False)
    lines = [msgspec.json.decode(line, type=ProgressLine) for line in done.stdout.splitlines()]
    return PackagerRun(done.returncode, lines, done.stderr.decode())
