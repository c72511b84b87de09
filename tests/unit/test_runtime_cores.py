"""How many cores the cgroups grant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.cores import cgroup_limit, core_count


def group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def membership(folder: Path, *lines: str) -> Path:
    file = folder / "membership"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_container_sees_its_limit_at_the_root(tmp_path: Path) -> None:
    root = group(tmp_path / "fs", cpu__max="150000 100000\n")
    assert cgroup_limit(root, membership(tmp_path, "0::/")) == 1.5
    assert core_count(root, membership(tmp_path, "0::/")) <= 2
    group(root, cpu__max="50000 100000")
    assert core_count(root, membership(tmp_path, "0::/")) == 1


def test_a_service_is_limited_by_its_own_group_and_by_those_above_it(tmp_path: Path) -> None:
    root = group(tmp_path / "fs", cpu__max="max 100000")
    group(root / "system.slice", cpu__max="200000 100000")
    group(root / "system.slice" / "score.service", cpu__max="800000 100000")
    line = "0::/system.slice/score.service"
    assert cgroup_limit(root, membership(tmp_path, line)) == 2
    group(root / "system.slice" / "score.service", cpu__max="50000 100000")
    assert cgroup_limit(root, membership(tmp_path, line)) == 0.5
    # Somebody else's limit is not ours.
    assert cgroup_limit(root, membership(tmp_path, "0::/user.slice")) is None


def test_the_older_version_is_read_too(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    group(root / "cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    group(root / "cpu,cpuacct" / "docker" / "abc", cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    lines = ["12:cpu,cpuacct:/docker/abc", "4:memory:/docker/abc", "0::/"]
    assert cgroup_limit(root, membership(tmp_path, *lines)) == 3


@pytest.mark.parametrize("text", ["", "nonsense", "max 100000", "1 0", "1", "-5 x"])
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, text: str) -> None:
    root = group(tmp_path / "fs", cpu__max=text)
    assert cgroup_limit(root, membership(tmp_path, "0::/../../beside", "garbage", ":", "a:b")) is None
    assert core_count(root, tmp_path / "missing") == len(os.sched_getaffinity(0))
