"""How a wanted release of the agent stands, read from the folder of releases. Looks only.

Beside what the launcher keeps there (``launch.py``) the folder has ``desired.json``: which release was tried for the desired
state, and why it is not tried again. It belongs to that release alone; when another one is wanted it is written anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.service import launch
from hedgerow.contracts.edge import AgentRelease

NOTE = "desired.json"
Standing = Literal["current", "trial", "busy", "refused", "unmanaged", "due"]


@dataclass(frozen=True)
class Found:
    """``busy``: another release is on trial. ``due``: it is to be put in place."""

    standing: Standing
    reason: str = ""


def name_of(release: AgentRelease) -> str:
    """The folder that ``upgrade.build`` makes for it."""
    return release.version if release.wheel is None else f"{release.version}-{release.wheel.removeprefix('sha256:')[:12]}"


def standing_of(release: AgentRelease, releases: Path | None, own_version: str) -> Found:
    """``releases`` None: this agent was not started by the launcher; ``own_version`` is what it is."""
    name = name_of(release)
    if releases is None:
        if own_version == release.version:
            return Found("current", "it runs already, put in place by hand")
        words = "this agent is not one of a folder of releases (hedgerow agent upgrade, then install); update it by hand"
        return Found("unmanaged", words)
    trial = launch.read(releases / launch.TRIAL)
    now = launch.current(releases)
    if trial:
        on_trial = trial.get("candidate")
        return Found("trial" if on_trial == now == name else "busy", f"release {on_trial} is on trial")
    if now == name or (release.wheel is None and own_version == release.version):
        return Found("current")
    if release.wheel is not None and "-" in release.version:
        return Found("refused", f"no wheel can have the version {release.version}")
    note = launch.read(releases / NOTE)
    if note.get("name") != name:
        return Found("due")
    if note.get("refused"):
        return Found("refused", str(note["refused"]))
    outcome = launch.read(releases / launch.OUTCOME)
    if outcome.get("candidate") == name and not outcome.get("kept"):
        return Found("refused", str(outcome.get("reason")))
    return Found("due")


def begin(release: AgentRelease, releases: Path) -> None:
    """Note that ``release`` is tried now; what became of an earlier try of the same one, before another was wanted, is over.

    Raises OSError.
    """
    name = name_of(release)
    if launch.read(releases / NOTE).get("name") == name:
        return
    if launch.read(releases / launch.OUTCOME).get("candidate") == name:
        (releases / launch.OUTCOME).unlink()
    launch.write(releases / NOTE, {"name": name})


def refuse(release: AgentRelease, releases: Path, reason: str) -> None:
    """Never again, until another release was wanted. Raises OSError."""
    launch.write(releases / NOTE, {"name": name_of(release), "refused": reason})
