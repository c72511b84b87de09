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
from packager.environment import answer_as_armv7
from packager.environment.platforms import ARMV7
from packager.errors import EnvironmentUnsolvable, IndexUnreachable
from packager.settings import RUNTIME_REQUIREMENTS

log = logging.getLogger(__name__)
_FULL = re.compile(r"no space left|os error 28|disk quota", re.I)
# What uv may see of the environment: where its cache and its index are, and how to reach the network.
_PASSED_ON = re.compile(r"UV_.*|SSL_CERT_(FILE|DIR)|(ALL|HTTPS?|NO)_PROXY|XDG_.*|HOME|PATH|TMPDIR|NETRC|LANG|LC_ALL", re.I)
# Nothing of a build is in this text, so it may be a shell's.
_STAND_IN = """\
#!/bin/sh
exec "${0%/*}/real" -I -B "${0%/*}/answer.py" "$0" "${0%/*}/real" "$@"
"""


@dataclass(frozen=True)
class Uv:
    """``python`` is an interpreter that uv may ask about itself; the wheels are for the target, not for it."""

    program: Path
    python: Path
    environment: Mapping[str, str]
    timeout_s: float = 900.0

    def run(self, arguments: Sequence[str], cwd: Path, *, platform: str, python_version: str) -> None:
        """Run one uv command to its end.

        Raises EnvironmentUnsolvable with uv's explanation made short, IndexUnreachable, or OSError (ENOSPC) as it comes.
        """
        argv = self._argv(arguments, cwd)
        log.info("running %s", " ".join(argv))
        try:
            done = subprocess.run(
                argv, cwd=cwd, env=dict(self.environment), capture_output=True, text=True, timeout=self.timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise IndexUnreachable(problem=f"uv gave no answer within {self.timeout_s:.0f} s") from None
        log.debug("uv said: %s", done.stderr)
        if done.returncode == 0:
            for line in done.stderr.splitlines():
                if "is yanked" in line:
                    log.warning("%s: locked all the same, because exactly this version was asked for", line.strip())
            return
        if _FULL.search(done.stderr):
            raise OSError(28, "No space left on device", str(cwd))
        from packager.environment.uv_words import advice, explain, unreachable  # a hundred patterns, for failures only

        if problem := unreachable(done.stderr):
            raise IndexUnreachable(problem=problem)
        found = explain(done.stderr, RUNTIME_REQUIREMENTS)
        raise EnvironmentUnsolvable(**vars(found), advice=advice(found), platform=platform, python_version=python_version)

    def _argv(self, arguments: Sequence[str], cwd: Path) -> list[str]:
        argv, python = list(arguments), self.python
        if ARMV7 in argv:
            at = argv.index(ARMV7)
            del argv[at - 1 : at + 1]  # the name with its option
            python = _stand_in(self.python, cwd)
        return [str(self.program), *argv, "--python", str(python), "--no-progress", "--color", "never"]


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


def _stand_in(python: Path, folder: Path) -> Path:
    """An interpreter in ``folder`` that says of itself to stand on 32-bit ARM (`answer_as_armv7.py`)."""
    place = folder / "python-armv7"
    program = place / "python"
    if not program.exists():
        place.mkdir(exist_ok=True)
        (place / "real").symlink_to(python.absolute())
        (place / "answer.py").symlink_to(Path(answer_as_armv7.__file__).absolute())
        program.write_text(_STAND_IN, encoding="utf-8")
        program.chmod(0o755)
    return program
