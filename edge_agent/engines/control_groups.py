"""Control groups (cgroup v2) of process modules: memory, CPU and number of processes of a module's whole tree.

The agent may have them where systemd delegates its unit's group and puts the agent into ``agent`` below it (systemd 254 and
later with the shipped unit), or where it is given a folder of the tree with ``--cgroup``. A module's group lies beside the
agent's own, and stays when the agent ends: the next one finds it by the module's name. Without groups rlimits hold each
process by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.edge import Limits

TREE = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "memory", "pids")
AGENT_GROUP = "agent"
_PERIOD_US = 100_000
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ControlGroups:
    """``root`` is a group that is the agent's to divide, with all of ``NEEDED`` enabled for its children."""

    root: Path

    def prepare(self, module: str, limits: Limits) -> Path:
        """The folder of the module's group, empty, with these limits. Raises OSError; nothing is limited then."""
        group = self._of(module)
        self.remove(module)
        group.mkdir(exist_ok=True)
        _limit(group, "memory.max", limits.memory_bytes)
        _limit(group, "cpu.max", None if limits.cpus is None else max(1000, int(limits.cpus * _PERIOD_US)), f" {_PERIOD_US}")
        _limit(group, "pids.max", limits.processes)
        # One process of a module that the kernel ends for want of memory would leave the others behind, half dead.
        _limit(group, "memory.oom.group", None if limits.memory_bytes is None else 1, none="0")
        return group

    def kill(self, module: str) -> None:
        """End what is still in the module's group: what ran away from its session cannot run away from here."""
        with contextlib.suppress(OSError):
            _write(self._of(module), "cgroup.kill", "1")

    def remove(self, module: str) -> None:
        """Take the module's group away, with what is left in it; a process that takes its time leaves it for the next try."""
        group = self._of(module)
        self.kill(module)
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()

    def out_of_memory(self, module: str) -> bool:
        """True when the kernel has ended this run because it wanted more memory than its limit."""
        try:
            events = (self._of(module) / "memory.events").read_text(encoding="ascii").split()
        except OSError:
            return False
        return dict(zip(events[::2], events[1::2], strict=False)).get("oom_kill", "0") != "0"

    def _of(self, module: str) -> Path:
        return self.root / f"module-{module}"


def open_groups(folder: Path | None, *, tree: Path = TREE, membership: Path = Path("/proc/self/cgroup")) -> ControlGroups | None:
    """The groups that this agent may make, below ``folder`` or below what it was delegated; None when it may make none."""
    try:
        root = folder if folder is not None else _delegated(tree, membership.read_text(encoding="utf-8"))
        if root is None:
            return None
        root.mkdir(exist_ok=True)
        offered = (root / "cgroup.controllers").read_text(encoding="ascii").split()
        missing = [name for name in NEEDED if name not in offered]
        if missing:
            log.warning("no control groups for modules: %s has no %s", root, ", ".join(missing))
            return None
        _write(root, "cgroup.subtree_control", " ".join(f"+{name}" for name in NEEDED))
    except OSError as problem:
        log.warning("no control groups for modules: %s", problem)
        return None
    return ControlGroups(root)


def _delegated(tree: Path, membership: str) -> Path | None:
    own = next((line.removeprefix("0::/") for line in membership.splitlines() if line.startswith("0::/")), "")
    # Anything else is a group with processes in it, the agent's first of all: such a one cannot be divided.
    return (tree / own).parent if own.endswith(f"/{AGENT_GROUP}") else None


def _limit(group: Path, name: str, value: int | None, rest: str = "", none: str = "max") -> None:
    """No limit is the kernel's default; it is written where an older group could not be taken away."""
    if value is not None or (group / name).exists():
        _write(group, name, f"{none if value is None else value}{rest}")


def _write(group: Path, name: str, value: str) -> None:
    # In a control group nothing can be made: what is not there is refused.
    fd = os.open(group / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
