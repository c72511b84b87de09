"""The cgroup's limit as the kernel tells it to a process inside: a real group, which only root may make."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A real cgroup with a limit of half a core; only root may make one."""
    cpu_v1, unified = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    name = f"hedgerow-test-{uuid.uuid4().hex[:8]}"
    folder = (cpu_v1 if (cpu_v1 / "cpu.shares").exists() else unified) / name
    folder.mkdir()
    try:
        if (folder / "cpu.cfs_quota_us").exists():
            (folder / "cpu.cfs_quota_us").write_text("50000")
        else:
            (folder / "cpu.max").write_text("50000 100000")
        yield folder
    finally:
        folder.rmdir()


def test_a_real_group_limits_the_processes_in_it(real_group: Path) -> None:
    # The child joins before it looks; it ends before the group goes.
    code = (
        "import os, pathlib, sys; pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid())); "
        "from runtime.cores import cgroup_limit, core_count; print(cgroup_limit(), core_count())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(real_group)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["0.5", "1"], done.stderr
