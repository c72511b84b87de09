"""Supervised processes for tests: made in a temporary folder, all ended when the test ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hedgerow.process import Exited, Observation, ProcessSpec, Supervised
from tests.waiting import wait_for

REPOSITORY = Path(__file__).parent.parent
PATH = "/usr/local/bin:/usr/bin:/bin"


class Folders:
    """Hands out :class:`Supervised` objects below one folder and remembers them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[Supervised] = []

    def make(self, name: str = "one") -> Supervised:
        self.made.append(Supervised(self.root / name))
        return self.made[-1]

    def record(self, name: str = "one") -> dict[str, Any]:
        """``state.json`` of a folder."""
        return dict(msgspec.json.decode((self.root / name / "state.json").read_bytes()))


@contextmanager
def process_folders(root: Path) -> Iterator[Folders]:
    folders = Folders(root)
    try:
        yield folders
    finally:
        for supervised in folders.made:
            supervised.stop(0)


def shell(script: str, **fields: Any) -> ProcessSpec:
    """A spec that runs ``script`` in sh."""
    return ProcessSpec(argv=["/bin/sh", "-c", script], cwd="/", environment={"PATH": PATH}, **fields)


def python(script: str, *arguments: str, **fields: Any) -> ProcessSpec:
    """A spec that runs ``script`` in the Python of the tests."""
    return ProcessSpec(argv=[sys.executable, "-I", "-S", "-c", script, *arguments], cwd="/", environment={"PATH": PATH}, **fields)


def ended(supervised: Supervised, timeout_s: float = 20.0) -> Exited:
    """Wait until the process has ended."""

    def look() -> Exited | None:
        seen: Observation = supervised.observe()
        return seen if isinstance(seen, Exited) else None

    seen = wait_for(look, timeout_s=timeout_s, what=f"the end of the process in {supervised.log_path.parent}")
    assert seen is not None
    return seen


def alive(pid: int) -> bool:
    """Whether a pid runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def pids_in(path: Path, count: int) -> list[int]:
    """Pids that a script writes into a file, one a line; waits until ``count`` are there."""

    def look() -> list[int]:
        words = path.read_text().split() if path.exists() else []
        return [int(word) for word in words] if len(words) >= count else []

    return wait_for(look, what=f"{count} pids in {path}")


def need_root() -> None:
    """These tests change users and mount: without root nothing would be proven, so they fail instead of being skipped."""
    if os.geteuid() != 0:
        pytest.fail("this test needs root (it changes users or mounts a small file system); run `make test` as root")
