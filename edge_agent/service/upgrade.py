"""Puts another release of the agent beside the one that runs, and switches to it: on trial, with a way back (``launch.py``).

A release is a virtual environment of its own. It is built where it will stay (environments cannot be moved) and has a file
``complete`` once it is; before the switch it has to answer ``--help``. Nothing of this touches modules: the next agent adopts
them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import UpgradeRefused
from edge_agent.service import launch
from hedgerow.atomic_write import fsync_folder

# ``installed``: all packages are there; ``complete``: it also answered.
INSTALLED, COMPLETE = "installed", "complete"
LAUNCHER = "launch.py"
BUILD_TIMEOUT_S = 1800.0
CHECK_TIMEOUT_S = 60.0
# Begins with a digit, as no other name in the folder of releases does.
_NAME = re.compile(r"[0-9][0-9A-Za-z.+_-]{0,60}")


@dataclass(frozen=True)
class Wish:
    """Which release: a ``wheel`` file (checked against ``sha256`` when given) or a ``version`` of a package index.

    ``find_links``: a folder of wheels to take everything from, instead of an index.
    """

    wheel: Path | None = None
    version: str | None = None
    sha256: str | None = None
    index_url: str | None = None
    find_links: Path | None = None

    @property
    def name(self) -> str:
        """The folder of the release. Raises UpgradeRefused."""
        if (self.wheel is None) == (self.version is None):
            raise UpgradeRefused(release="unnamed", problem="exactly one of --wheel and --version is needed")
        parts = self.wheel.name.split("-") if self.wheel is not None else []
        name = (parts[1] if len(parts) > 1 else "") if self.wheel is not None else self.version or ""
        if not _NAME.fullmatch(name):
            shown = name if self.wheel is None else self.wheel.name
            raise UpgradeRefused(release=shown, problem="this is no version of a release, nor a wheel's name with one")
        return name


def build(releases: Path, wish: Wish) -> str:
    """Install the release beside the others; returns its name. One that is there, complete, is taken. Raises UpgradeRefused."""
    name = wish.name
    if wish.wheel is not None:
        name = f"{name}-{_checked_digest(wish.wheel, wish.sha256)[:12]}"
    folder = releases / name
    if (folder / COMPLETE).exists():
        return name
    try:
        releases.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            shutil.rmtree(folder)  # an attempt that was cut short
        for command in _commands(folder, wish):
            _run(name, command, BUILD_TIMEOUT_S)
        (folder / INSTALLED).touch()
        _run(name, [str(folder / "bin/python"), "-P", "-m", "edge_agent", "--help"], CHECK_TIMEOUT_S)
        shutil.copyfile(launch.__file__, releases / f".{LAUNCHER}.new")
        (releases / f".{LAUNCHER}.new").replace(releases / LAUNCHER)
        (folder / COMPLETE).touch()
        fsync_folder(folder)
    except OSError as problem:
        raise UpgradeRefused(release=name, problem=problem.strerror or str(problem)) from problem
    return name


def begin_trial(releases: Path, name: str, *, had_session: bool) -> None:
    """Switch to a release that is built. Raises UpgradeRefused when there is none to come back to, or a trial under way."""
    previous = launch.current(releases)
    if not previous:
        launch.switch(releases, name)
        return
    if launch.read(releases / launch.TRIAL):
        raise UpgradeRefused(release=name, problem=f"release {previous} is still on trial")
    if previous == name:
        raise UpgradeRefused(release=name, problem="it is the current one")
    trial: dict[str, object] = {"previous": previous, "candidate": name, "starts": 0, "had_session": had_session}
    # Written first: a switch without its trial would have no way back.
    launch.write(releases / launch.TRIAL, trial)
    launch.switch(releases, name)
    _forget_others(releases, {previous, name})


def _commands(folder: Path, wish: Wish) -> list[list[str]]:
    what = f"hedgerow[edge] @ {wish.wheel.absolute().as_uri()}" if wish.wheel else f"hedgerow[edge]=={wish.version}"
    source = ["--no-index", "--find-links", str(wish.find_links)] if wish.find_links else []
    source += ["--index-url", wish.index_url] if wish.index_url else []
    python = str(folder / "bin/python")
    uv = shutil.which("uv")
    if uv is not None:
        return [
            [uv, "venv", "--quiet", "--python", _base_python(), str(folder)],
            [uv, "pip", "install", "--quiet", "--python", python, *source, what],
        ]
    return [
        [_base_python(), "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *source, what],
    ]


def _base_python() -> str:
    """The interpreter below all environments: a release must not rest on the one that builds it."""
    return str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())


def launch_argv(releases: Path, arguments: Sequence[str]) -> list[str]:
    """The command that starts whatever release is current."""
    return [_base_python(), "-I", str(releases / LAUNCHER), str(releases), *arguments]


def _checked_digest(wheel: Path, wanted: str | None) -> str:
    try:
        with wheel.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise UpgradeRefused(release=str(wheel), problem=problem.strerror) from None
    if wanted is not None and not hmac.compare_digest(found, wanted.lower()):
        raise UpgradeRefused(release=wheel.name, problem=f"its sha256 is {found}, not {wanted}")
    return found


def _run(name: str, command: list[str], timeout_s: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise UpgradeRefused(release=name, problem=f"{Path(command[0]).name} takes longer than {timeout_s:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UpgradeRefused(release=name, problem=f"{Path(command[0]).name}: {' '.join(said[-3:]) or done.returncode}")


def _forget_others(releases: Path, kept: set[str]) -> None:
    """Only the release that runs and the one to go back to cost disk space."""
    for path in releases.iterdir():
        if path.is_dir() and not path.is_symlink() and path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
