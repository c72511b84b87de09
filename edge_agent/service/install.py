"""Makes the agent a service of this machine, or of one user: the unit's file and what systemctl is told. Planned, then done."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import ServiceRefused
from edge_agent.service.unit import NAME
from hedgerow.atomic_write import atomic_write

SYSTEM_UNITS = Path("/etc/systemd/system")
COMMAND_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Change:
    """What installing or removing does, in this order. ``text`` None: the unit's file goes, between the commands."""

    unit: Path
    text: str | None
    before: tuple[tuple[str, ...], ...]
    after: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """For people: what would be done."""
        written = [f"write {self.unit}:", *self.text.splitlines()] if self.text is not None else [f"remove {self.unit}"]
        return [*(f"run {' '.join(command)}" for command in self.before), *written, *(f"run {' '.join(c)}" for c in self.after)]


def unit_path(*, user: bool, home: Path) -> Path:
    """Where the unit belongs."""
    return (home / ".config/systemd/user" if user else SYSTEM_UNITS) / NAME


def installing(unit: Path, text: str, *, user: bool, start: bool) -> Change:
    """Write the unit, let systemd read it, enable it, start (or restart) it."""
    systemctl = _systemctl(user=user)
    begun = ((*systemctl, "restart", NAME),) if start else ()
    return Change(unit, text, (), ((*systemctl, "daemon-reload"), (*systemctl, "enable", NAME), *begun))


def removing(unit: Path, *, user: bool) -> Change:
    """End the service and take its unit away. Modules run on, as always when an agent ends."""
    systemctl = _systemctl(user=user)
    return Change(unit, None, ((*systemctl, "disable", "--now", NAME),), ((*systemctl, "daemon-reload"),))


def carry_out(change: Change) -> None:
    """Do it. Raises ServiceRefused with what systemctl or the file system said."""
    try:
        _run(change.before)
        if change.text is None:
            change.unit.unlink(missing_ok=True)
        else:
            change.unit.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(change.unit, change.text.encode())
        _run(change.after)
    except OSError as problem:
        raise ServiceRefused(unit=change.unit, problem=problem.strerror or str(problem)) from problem


def _systemctl(*, user: bool) -> tuple[str, ...]:
    return ("systemctl", "--user") if user else ("systemctl",)


def _run(commands: Sequence[Sequence[str]]) -> None:
    for command in commands:
        program = shutil.which(command[0])
        if program is None:
            raise ServiceRefused(unit=NAME, problem=f"there is no {command[0]} on this machine")
        try:
            done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise ServiceRefused(unit=NAME, problem=f"{' '.join(command)} does not answer") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise ServiceRefused(unit=NAME, problem=f"{' '.join(command)}: {said[-1] if said else done.returncode}")
