"""Starts the agent's current release; goes back to the one before when a new one does not come up. Runs without Hedgerow.

    python -I launch.py RELEASES run --config device.toml …

``upgrade`` puts a copy of this file into the folder of releases, where no release can break it: it imports nothing but the
standard library. RELEASES has one virtual environment for each release, the link ``current`` to one of them, and while a
release is on trial ``trial.json``. The agent itself ends the trial when it is well (``trial.py``); each start before that is
counted here, and after ``STARTS_MAX`` of them the link goes back.

AFTER A CRASH between two steps: a trial whose release is not the current one was either not begun (no start was counted) or just
taken back; either way the link is right and only the trial is to be ended.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

STARTS_MAX = 3
CURRENT, TRIAL, OUTCOME = "current", "trial.json", "outcome.json"


def main(arguments: list[str]) -> int:
    """Does not return when all is well: this process becomes the agent."""
    releases = Path(arguments[0]).absolute()
    try:
        reason = settle(releases)
    except (OSError, ValueError, KeyError) as problem:
        # A full disk, most of all: a start that cannot be counted is a start all the same.
        reason = f"the trial of a release cannot be followed: {problem!r}"
    if reason:
        sys.stderr.write(f"hedgerow agent: {reason}\n")
    for _ in range(2):
        python = releases / CURRENT / "bin/python"
        with contextlib.suppress(OSError):
            argv = [str(python), "-P", "-m", "edge_agent", *arguments[1:], "--releases", str(releases)]
            os.execv(python, argv)  # noqa: S606 - no shell, a program of our own folder
        # It cannot even be started: no need to try three times.
        trial = read(releases / TRIAL)
        if not trial:
            break
        go_back(releases, trial, "it has no Python that can be started")
    sys.stderr.write(f"hedgerow agent: {releases}/{CURRENT} cannot be started\n")
    return 1


def settle(releases: Path) -> str:
    """Before a start: count it when a release is on trial, or end the trial. Returns words for what was ended, or ""."""
    trial = read(releases / TRIAL)
    if not trial:
        return ""
    candidate, starts = str(trial["candidate"]), int(str(trial["starts"]))
    if current(releases) != candidate:
        if starts:
            return go_back(releases, trial, "it did not become healthy")
        (releases / TRIAL).unlink()
        return ""
    if starts >= STARTS_MAX:
        return go_back(releases, trial, str(trial.get("problem") or f"it was started {starts} times and did not become healthy"))
    write(releases / TRIAL, {**trial, "starts": starts + 1})
    return ""


def go_back(releases: Path, trial: "dict[str, object]", why: str) -> str:
    """Link to the release before, and say why; in this order, so that a crash in between loses no more than words."""
    previous, candidate = str(trial["previous"]), str(trial["candidate"])
    switch(releases, previous)
    words = f"release {candidate} was taken back, {previous} runs again: {why}"
    write(releases / OUTCOME, {"candidate": candidate, "previous": previous, "kept": False, "reason": words})
    (releases / TRIAL).unlink(missing_ok=True)
    return words


def current(releases: Path) -> str:
    """Name of the release that ``current`` points to, "" when there is none."""
    try:
        return (releases / CURRENT).readlink().name
    except OSError:
        return ""


def switch(releases: Path, name: str) -> None:
    """Point ``current`` to another release; at no moment is there none."""
    beside = releases / f".{CURRENT}.new"
    beside.unlink(missing_ok=True)
    beside.symlink_to(name)
    beside.replace(releases / CURRENT)
    _sync(releases)


def read(path: Path) -> "dict[str, object]":
    """A small JSON object, {} when it is not there or not readable as one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write(path: Path, value: "dict[str, object]") -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
