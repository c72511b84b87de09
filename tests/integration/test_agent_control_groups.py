"""Control groups of process modules: which are found, what is written, and real groups that modules are in.

A real group needs root and a cgroup v2 tree, which every kernel of today has. Limits of memory and CPU need its controllers
too; where those belong to version 1 (as in some containers) they cannot be tried, so the values are checked on a folder.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.engines.control_groups import ControlGroups, open_groups
from edge_agent.engines.engine import Launch
from edge_agent.engines.engine_process import ProcessEngine
from edge_agent.observing.usage import usage_of
from edge_agent.reconcile.situation import Exited, Running, Wanted
from hedgerow.contracts.edge import Limits
from hedgerow.process.procfs import read_stat
from tests.agent_builders import wanted
from tests.waiting import wait_for


def tree(folder: Path, *, own: str, controllers: str = "cpuset cpu io memory pids") -> tuple[Path, Path]:
    """A folder like the kernel's tree with the group ``own`` and the one above it, and what /proc says about us."""
    group = folder / own
    group.mkdir(parents=True)
    (group.parent / "cgroup.controllers").write_text(controllers)
    membership = folder / "membership"
    membership.write_text(f"1:name=systemd:/x\n0::/{own}\n")
    return folder, membership


def test_a_delegated_group_with_the_agent_below_it_is_divided(tmp_path: Path) -> None:
    root, membership = tree(tmp_path, own="system.slice/hedgerow-agent.service/agent")
    groups = open_groups(None, tree=root, membership=membership)
    assert groups == ControlGroups(root / "system.slice/hedgerow-agent.service")
    assert (groups.root / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


@pytest.mark.parametrize(
    ("own", "controllers"), [("system.slice/hedgerow-agent.service", "cpu memory pids"), ("a/agent", "cpu pids"), ("agent", "")]
)
def test_no_groups_where_none_can_be(tmp_path: Path, own: str, controllers: str) -> None:
    root, membership = tree(tmp_path, own=own, controllers=controllers)
    assert open_groups(None, tree=root, membership=membership) is None
    assert not list(root.rglob("cgroup.subtree_control"))


def test_a_machine_without_the_tree_has_none(tmp_path: Path) -> None:
    assert open_groups(tmp_path / "no/such", tree=tmp_path) is None


def test_the_limits_are_written_as_the_kernel_takes_them(tmp_path: Path) -> None:
    groups = ControlGroups(tmp_path)
    group = groups.prepare("m", Limits(memory_bytes=50_000_000, cpus=0.25, processes=20))
    assert group == tmp_path / "module-m"
    assert {path.name: path.read_text() for path in group.iterdir() if path.name != "cgroup.kill"} == {
        "memory.max": "50000000",
        "cpu.max": "25000 100000",
        "pids.max": "20",
        "memory.oom.group": "1",
    }
    # A group that could not be taken away has the old limits; the next run must not.
    groups.prepare("m", Limits())
    assert [(group / name).read_text() for name in ("memory.max", "cpu.max", "pids.max")] == ["max", "max 100000", "max"]
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 0\n")
    assert not groups.out_of_memory("m")
    (group / "memory.events").write_text("low 0\noom_kill 2\n")
    assert groups.out_of_memory("m")


@pytest.fixture
def real_root() -> Iterator[Path]:
    """A group of our own in the kernel's version 2 tree, wherever that is mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mounted = Path(next(words[1] for words in mounts if words[2] == "cgroup2"))
    folder = mounted / f"hedgerow-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    yield folder
    (folder / "cgroup.kill").write_text("1")
    wait_for(lambda: _taken_away(folder), timeout_s=30, what="the end of everything in the test's groups")


def _taken_away(folder: Path) -> bool:
    """Processes that were killed keep their group until they have ended."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return not folder.exists()


def engine_in(root: Path, folder: Path) -> ProcessEngine:
    return ProcessEngine(folder / "modules", lambda _image: folder, {"PATH": "/usr/bin:/bin"}, groups=ControlGroups(root))


def shell(script: str, name: str = "m") -> Wanted:
    return wanted(name, command=["/bin/sh", "-c", script])


def run_of(engine: ProcessEngine, name: str = "m") -> Running | None:
    return next((seen for seen in engine.look() if seen.name == name and isinstance(seen, Running)), None)


def members(group: Path) -> list[int]:
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def test_a_module_and_its_children_are_in_its_group_and_stay_there_for_the_next_agent(real_root: Path, tmp_path: Path) -> None:
    engine = engine_in(real_root, tmp_path)
    engine.start(Launch(shell("sleep 1000 & wait"), {}))
    group = real_root / "module-m"
    pids = wait_for(lambda: len(found := members(group)) == 2 and found, timeout_s=30, what="both processes")
    running = run_of(engine)
    assert running is not None
    assert pids
    assert running.pid in pids
    assert run_of(engine_in(real_root, tmp_path)) == running
    successor = engine_in(real_root, tmp_path)
    successor.stop("m", 5.0)
    successor.remove("m", purge=True)
    # A process that takes its time to end leaves the group for the next try.
    wait_for(lambda: _taken_away(group), timeout_s=30, what="the end of the group")


def test_what_runs_away_from_its_session_does_not_outlive_its_module(real_root: Path, tmp_path: Path) -> None:
    engine = engine_in(real_root, tmp_path)
    group, marker = real_root / "module-m", tmp_path / "away"
    engine.start(Launch(shell(f"setsid sh -c 'echo $$ > {marker}; exec sleep 1000' & sleep 1000"), {}))
    away = int(wait_for(lambda: marker.exists() and marker.read_text().strip(), timeout_s=30, what="the runaway") or 0)
    assert away in members(group)
    engine.stop("m", 5.0)
    wait_for(lambda: not members(group), timeout_s=30, what="the end of the runaway")
    ended = read_stat(away)
    assert ended is None or ended.ended
    engine.start(Launch(shell("exec sleep 1000"), {}))
    wait_for(lambda: len(members(group)) == 1, timeout_s=30, what="the new run alone in it")
    engine.stop("m", 5.0)
    engine.remove("m", purge=True)


def test_a_group_that_cannot_be_made_costs_the_group_not_the_module(tmp_path: Path) -> None:
    engine = engine_in(tmp_path / "nowhere", tmp_path)
    engine.start(Launch(shell("exec sleep 1000"), {}))
    assert run_of(engine) is not None
    engine.stop("m", 5.0)


def test_a_group_that_cannot_be_joined_is_said(tmp_path: Path) -> None:
    (tmp_path / "groups/module-m/cgroup.procs").mkdir(parents=True)
    engine = engine_in(tmp_path / "groups", tmp_path)
    with pytest.raises(Exception, match="control group"):
        engine.start(Launch(shell("exec sleep 1000"), {}))


def test_memory_and_cpu_of_a_module_are_seen_without_a_group(tmp_path: Path) -> None:
    engine = ProcessEngine(tmp_path / "modules", lambda _image: tmp_path, {"PATH": "/usr/bin:/bin"})
    work = "x = bytearray(30_000_000)\nfor i in range(2_000_000): pass\nimport time; time.sleep(1000)"
    busy = f"{sys.executable} -c '{work}' & wait"
    engine.start(Launch(shell(busy), {}))
    running = run_of(engine)
    assert running is not None
    assert running.pid is not None
    pids = {"m": running.pid, "gone": 2**22 - 3}
    used = wait_for(
        lambda: (seen := usage_of(pids)["m"]).memory_bytes > 30_000_000 and seen.cpu_s > 0 and seen,
        timeout_s=60,
        what="its memory and its CPU time to be seen",
    )
    assert used
    assert used.pids == 2
    assert used.net_in is None, "it shares the machine's network"
    assert "gone" not in usage_of(pids)
    engine.stop("m", 1.0)
    assert isinstance(engine.look()[0], Exited)
