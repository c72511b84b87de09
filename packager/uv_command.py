"""Runs `uv`, which resolves and installs wheels for other platforms than this one. No other file starts it."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hedgerow.errors import MissingExtra
from packager.errors import EnvironmentUnsolvable, IndexUnreachable

log = logging.getLogger(__name__)
_NETWORK = re.compile(r"failed to fetch|error sending request|dns error|could not connect|timed? out|connection refused", re.I)
_FULL = re.compile(r"no space left|os error 28|disk quota", re.I)
# What uv may see of the environment: where its cache and its index are, and how to reach the network.
_PASSED_ON = re.compile(r"UV_.*|SSL_CERT_(FILE|DIR)|(ALL|HTTPS?|NO)_PROXY|XDG_.*|HOME|PATH|TMPDIR|NETRC|LANG|LC_ALL", re.I)


@dataclass(frozen=True)
class Uv:
    """``python`` is an interpreter that uv may ask about itself; the wheels are for the target, not for it."""

    program: Path
    python: Path
    environment: Mapping[str, str]
    timeout_s: float = 900.0

    def run(self, arguments: Sequence[str], cwd: Path, *, platform: str, python_version: str) -> None:
        """Run one uv command to its end.

        Raises EnvironmentUnsolvable with uv's own explanation, IndexUnreachable, or OSError (ENOSPC) as it comes.
        """
        argv = [str(self.program), *arguments, "--python", str(self.python), "--no-progress", "--color", "never"]
        log.info("running %s", " ".join(argv))
        try:
            done = subprocess.run(
                argv, cwd=cwd, env=dict(self.environment), capture_output=True, text=True, timeout=self.timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise IndexUnreachable(problem=f"uv gave no answer within {self.timeout_s:.0f} s") from None
        log.debug("uv said: %s", done.stderr)
        if done.returncode == 0:
            return
        problem = said(done.stderr)
        if _FULL.search(problem):
            raise OSError(28, "No space left on device", str(cwd))
        if _NETWORK.search(problem):
            raise IndexUnreachable(problem=problem)
        raise EnvironmentUnsolvable(problem=problem, platform=platform, python_version=python_version)


def find_uv(python: Path, environment: Mapping[str, str]) -> Path:
    """`uv` beside ``python``, from its own package, or on the PATH. Raises MissingExtra."""
    beside = python.parent / "uv"
    if beside.is_file():
        return beside
    try:
        from uv import find_uv_bin

        return Path(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv", path=environment.get("PATH", ""))
    if found is None:
        raise MissingExtra(what="Building a docker image", module="uv", extra="server")
    return Path(found)


def environment_for_uv(environment: Mapping[str, str], cache: Path) -> dict[str, str]:
    """The part of the environment that uv is given; without a home folder its cache lies in ours."""
    passed = {name: value for name, value in environment.items() if _PASSED_ON.fullmatch(name)}
    home = passed.get("HOME")
    if "UV_CACHE_DIR" not in passed and not (home and Path(home).is_dir()):
        passed["UV_CACHE_DIR"] = str(cache / "uv")
    return passed


def said(stderr: str) -> str:
    """uv's explanation as one line."""
    lines = [line.strip(" ×╰─▶│·├") for line in stderr.splitlines()]
    kept = [line.removeprefix("error: ") for line in lines if line and not line.startswith(("Using ", "Resolved ", "warning:"))]
    return " ".join(kept)[:2000] or "uv gave no reason"
