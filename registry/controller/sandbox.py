"""A user of their own for foreign code (training scripts, replicas), where this machine lets it have one.

As root, foreign code runs as user ``SANDBOX_UID``. That user must be able to enter the folders of the Python installation
and of the workspace. The workspace's own folders are opened for passing through (group x, nothing listed) and its
databases closed; what lies above belongs to the machine's owner and is left alone: where it bars the way the code runs as
the controller's user, with limits and an empty environment, and every activity says so (or refuses: ``--require-sandbox``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hedgerow.process import ProcessSpec, ResourceLimits
from hedgerow.process.reach import barred_by, open_way
from hedgerow.process.sandbox import RUN_GID, SANDBOX_GID, SANDBOX_UID, sandboxed
from registry.controller.errors import SandboxMissing
from registry.workspace import Workspace

# Long-lived and heavy on purpose; what the kernel's defaults of sandboxed() give is for short helpers.
_CPU_TIME_S = 10 * 365 * 86_400
_PROCESSES = 8192
_OPEN_FILES = 65_536


@dataclass(frozen=True)
class Sandbox:
    """``uid`` None: foreign code shares the controller's user; ``barred_by`` is then the folder in the way, if we are root."""

    uid: int | None
    barred_by: Path | None = None
    required: bool = False
    memory_bytes: int = 4 << 30

    def check(self) -> None:
        """Raises SandboxMissing."""
        if self.required and self.barred_by is not None:
            raise SandboxMissing(uid=SANDBOX_UID, folder=self.barred_by)

    def note(self) -> str:
        """What the log of an activity should say about it, if anything."""
        if self.barred_by is None:
            return ""
        return f"Runs as root: user {SANDBOX_UID} cannot enter {self.barred_by}, so it has no user of its own"

    def spec(self, argv: list[str], cwd: Path, environment: Mapping[str, str]) -> ProcessSpec:
        """A process of foreign code with exactly this environment (and PATH and LANG)."""
        limits = ResourceLimits(
            memory_bytes=self.memory_bytes, open_files=_OPEN_FILES, cpu_time_s=_CPU_TIME_S, processes=_PROCESSES
        )
        groups = [] if self.uid is None else [RUN_GID]
        bare = ProcessSpec(argv=argv, cwd=str(cwd), environment=dict(environment), limits=limits, groups=groups)
        return sandboxed(bare, uid=self.uid)

    def give(self, folder: Path) -> None:
        """Let foreign code write into ``folder``."""
        if self.uid is not None:
            os.chown(folder, self.uid, SANDBOX_GID)


def make_sandbox(workspace: Workspace, installation: Iterable[Path], *, running_as_root: bool, required: bool) -> Sandbox:
    """Decide once, at the start, and open the way through the workspace. ``installation``: what Python runs from."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not running_as_root:
        return Sandbox(None, memory_bytes=memory_bytes)
    barred = barred_by((*installation, workspace.folder.resolve().parent), SANDBOX_UID)
    if barred is not None:
        return Sandbox(None, barred, required, memory_bytes)
    _open_way(workspace)
    return Sandbox(SANDBOX_UID, required=required, memory_bytes=memory_bytes)


def _open_way(workspace: Workspace) -> None:
    # SQLite makes its files readable for all; so far only the folder's mode kept them private.
    for file in workspace.folder.glob("*.db*"):
        file.chmod(0o600)
    # In the cache builds test what they built (packager/verify/sandbox.py).
    for folder in (workspace.folder, workspace.work, workspace.cache):
        open_way(folder)
    # Deployed images can be read by all who get this far, and an image under test is not to.
    open_way(workspace.run, RUN_GID)
